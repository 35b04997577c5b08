"""TensorBoard: event files in the run folder, for `tensorboard --logdir runs`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.metrics import Row
from trainer.samples import Strip
from trainer.trackers.scalars import scalars_of


class TensorBoardTracker:
    """Writes curves by step, the latest sample groups, and the run file as text."""

    def __init__(self, folder: Path, resolved: dict[str, Any], resumed_step: int) -> None:
        """Points after `resumed_step`, which a resumed run trains again, are no longer shown."""
        from tensorboardX import SummaryWriter  # protobuf takes a while to import

        self._writer = SummaryWriter(
            logdir=str(folder),
            purge_step=resumed_step + 1 if resumed_step else None,
            # Files are named by the second, and one of the same name would be written over.
            filename_suffix=f".after{resumed_step}",
        )
        if not resumed_step:
            # Four blanks before a line make it code for TensorBoard.
            text = json.dumps(resolved, indent=2, ensure_ascii=False)
            self._writer.add_text("run.json", "    " + text.replace("\n", "\n    "), 0)

    def row(self, row: Row) -> None:
        """A point on each curve."""
        for name, value in scalars_of(row).items():
            self._writer.add_scalar(name, value, row["step"], walltime=row["time"])

    def strips(self, strips: Sequence[Strip]) -> None:
        """A picture and a caption for each."""
        for i, strip in enumerate(strips):
            self._writer.add_image(f"samples/{i}", strip.image_HWC, strip.step, dataformats="HWC")
            self._writer.add_text(f"samples/{i}", strip.caption, strip.step)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
