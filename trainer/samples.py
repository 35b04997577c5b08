"""Strips of groups for people to look at: m views side by side, with an index of their captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainer.batch import Batch
from trainer.run_folder import write_json

STRIPS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """One group of a batch as one picture."""

    group_id: int
    caption: str
    uses: int
    step: int
    image_HWC: npt.NDArray[np.uint8]
    """[height, m * width, 3]."""


def strips_of(batch: Batch) -> list[Strip]:
    """At most 8 groups of the batch, those trained for the first time first."""
    order = sorted(range(len(batch.groups)), key=lambda i: batch.uses[i])[:STRIPS]
    return [
        Strip(
            group_id=batch.groups[i].group_id,
            caption=batch.groups[i].ticket.caption,
            uses=batch.uses[i],
            step=batch.step,
            image_HWC=np.concatenate(list(batch.groups[i].images_NHWC), axis=1),
        )
        for i in order
    ]


def save_strips(folder: Path, strips: Sequence[Strip]) -> None:
    """Replaces the folder's strips by these."""
    index: list[dict[str, int | str]] = []
    for strip in strips:
        Image.fromarray(strip.image_HWC).save(folder / f"{strip.group_id}.png", optimize=True)
        index.append(
            {
                "group_id": strip.group_id,
                "caption": strip.caption,
                "uses": strip.uses,
                "step": strip.step,
            }
        )
    write_json(folder / "index.json", index)
    _drop_others(folder, [f"{entry['group_id']}.png" for entry in index])


def _drop_others(folder: Path, names: Sequence[str]) -> None:
    for path in folder.glob("*.png"):
        if path.name not in names:
            path.unlink()
