"""TensorBoard: event files in the run folder, for `tensorboard --logdir runs`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.metrics import Row
from trainer.samples import Strip
from trainer.trackers.hyperparameters import hyperparameters_of
from trainer.trackers.scalars import scalars_of


class TensorBoardTracker:
    """Writes curves by step, the latest sample groups, and the run file as text and as hyperparameters.

    Hyperparameters are a session of the HParams plugin in this very folder, so that all curves of the run are
    its metrics, each by its last point. There is no experiment summary: the plugin would take that of one run
    for all of them, and leave out what only the others have.
    """

    def __init__(self, folder: Path, suffix: str, purge_step: int | None = None) -> None:
        """Earlier points from `purge_step` on, which a resumed run trains again, are no longer shown.

        Files are named by the second and `suffix`, and one of the same name would be written over.
        """
        from tensorboardX import SummaryWriter  # protobuf takes a while to import

        self._writer = SummaryWriter(logdir=str(folder), purge_step=purge_step, filename_suffix=f".{suffix}")

    def begin(self, resolved: dict[str, Any], *, resumed: bool) -> None:
        """A session of the run whose whole file is `resolved`."""
        from tensorboardX.summary import hparams

        if not resumed:
            # Four blanks before a line make it code for TensorBoard.
            text = json.dumps(resolved, indent=2, ensure_ascii=False)
            self._writer.add_text("run.json", "    " + text.replace("\n", "\n    "), 0)
        # SummaryWriter.add_hparams would make a folder, which TensorBoard takes for another run. Of several
        # starts, as a resumed run writes them, TensorBoard keeps the first.
        _, start, _ = hparams(hyperparameters_of(resolved), {})
        self._writer.file_writer.add_summary(start, 0)

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

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """A point each."""
        for name, value in scores.items():
            self._writer.add_scalar(name, value, step)

    def finished(self) -> None:
        """The session ends with success."""
        from tensorboardX.summary import hparams

        _, _, end = hparams({}, {})
        self._writer.file_writer.add_summary(end, 0)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
