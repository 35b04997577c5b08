"""Strips of groups for people to look at: m views side by side, with an index of their captions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.batch import Batch
from trainer.run_folder import write_json

STRIPS = 8


def save_samples(folder: Path, batch: Batch) -> None:
    """Replaces the folder's strips by groups of this batch, those trained for the first time first."""
    order = sorted(range(len(batch.groups)), key=lambda i: batch.uses[i])[:STRIPS]
    index: list[dict[str, int | str]] = []
    for i in order:
        group = batch.groups[i]
        strip_HWC = np.concatenate(list(group.images_NHWC), axis=1)
        Image.fromarray(strip_HWC).save(folder / f"{group.group_id}.png", optimize=True)
        index.append(
            {
                "group_id": group.group_id,
                "caption": group.ticket.caption,
                "uses": batch.uses[i],
                "step": batch.step,
            }
        )
    write_json(folder / "index.json", index)
    _drop_others(folder, [f"{entry['group_id']}.png" for entry in index])


def _drop_others(folder: Path, names: Sequence[str]) -> None:
    for path in folder.glob("*.png"):
        if path.name not in names:
            path.unlink()
