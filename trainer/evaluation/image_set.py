"""A set of labelled pictures that encoders are judged on, whatever it is stored as.

    rows of a folder, of shards or of Parquet ─assemble→ ImageSet: train, perhaps validation, test

Shapes: N pictures of a split. Nothing is decoded before it is asked for.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import xxhash
from torch import Tensor

from protocol.errors import UserError
from trainer.errors import DamagedImageError
from trainer.pool.images import BYTES_MAX, ImageHWC, decode_image

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""As folders and files are named."""


class Place(NamedTuple):
    """Where the bytes of a picture lie."""

    path: Path
    offset: int = 0
    size: int = -1
    """-1: to the end of the file."""


Label = str | int
"""The name of a class, or its number."""


class Row(NamedTuple):
    """One picture as a reader found it."""

    place: Place
    label: Label | tuple[Label, ...]
    """A tuple in a set whose pictures have several classes, or none."""
    captions: tuple[str, ...] = ()
    group: str = ""
    """What group-wise accuracy tells apart; empty where the set has no groups."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Row i of every field belongs together."""

    name: SplitName
    read: Callable[[int], ImageHWC]
    """Decodes picture i; for any thread. Raises UserError."""
    labels_N: Tensor
    """int64 places in the set's `classes`; -1 where there is `classes_NC`."""
    captions: Sequence[tuple[str, ...]]
    groups: Sequence[str]
    digest: str
    """Of what the pictures are: names, sizes and times of change, or contents."""
    instances_N: Tensor | None = None
    """int64, what retrieval looks for where that is finer than a class."""
    classes_NC: Tensor | None = None
    """bool, which classes each picture has, in a set whose pictures have several or none."""

    @property
    def targets(self) -> Tensor:
        """What a classifier is fitted to: `labels_N`, or `classes_NC` as float32."""
        return self.labels_N if self.classes_NC is None else self.classes_NC.float()

    @property
    def labels_digest(self) -> str:
        """Of `classes_NC`, which may lie in a table beside the pictures; else empty."""
        if self.classes_NC is None:
            return ""
        return "+" + xxhash.xxh3_64_hexdigest(self.classes_NC.numpy().tobytes())

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """`validation` is None where the set has none of its own."""

    name: str
    classes: Sequence[str]
    train: Split | None
    validation: Split | None
    test: Split
    templates: Sequence[str] = ()
    """Texts with a {} for the class name, where the set's classes want others than photographs do."""

    @property
    def is_multi_label(self) -> bool:
        """Whether its pictures have several classes, or none."""
        return self.test.classes_NC is not None


class FilePictures:
    """Reads and decodes pictures from their places."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places

    def __call__(self, index: int) -> ImageHWC:
        """[height, width, 3] uint8. Raises UserError: a score of the rest would be of another set."""
        place = self._places[index]
        try:
            with open(place.path, "rb") as file:
                file.seek(place.offset)
                size = place.size if 0 <= place.size <= BYTES_MAX else BYTES_MAX + 1
                return decode_image(file.read(size))
        except (OSError, DamagedImageError) as error:
            raise UserError(
                "a picture can't be read",
                expected="WebP, PNG or JPEG",
                got=getattr(error, "strerror", None) or str(error),
                where=f"{place.path}" + (f" at byte {place.offset}" if place.offset else ""),
                mend="fetch it again, or take it out of the set",
            ) from error


def assemble(
    name: str, rows: Mapping[SplitName, Sequence[Row]], class_names: Sequence[str], where: Path
) -> ImageSet:
    """Numbers the classes and joins the rows. Raises UserError.

    `class_names` belong to labels that are numbers. A set whose only held-out split is a validation split,
    such as ImageNet, is judged on that one.
    """
    found = {split: list(rows.get(split, ())) for split in ("train", "validation", "test")}
    if not found["test"]:
        found["test"], found["validation"] = found["validation"], []
    if not found["test"]:
        raise UserError(
            "nothing to judge on",
            expected="labelled pictures of a split called test or val",
            got=f"{len(found['train'])} of train",
            where=str(where),
            mend="name folders, or the beginnings of files, train, val and test",
        )
    labels = [row.label for split in found.values() for row in split]
    lists = [label for label in labels if isinstance(label, tuple)]
    if lists and len(lists) < len(labels):
        single = next(label for label in labels if not isinstance(label, tuple))
        raise _bad_labels("labels that are all lists or all single", f"{single!r} and {lists[0]}", where)
    distinct = {label for one in labels for label in (one if isinstance(one, tuple) else (one,))}
    strange = [label for label in distinct if type(label) not in (str, int)]
    if strange:
        raise _bad_labels("names or whole numbers", repr(strange[0]), where)
    if not distinct:
        raise _bad_labels("a picture with a class", f"{len(labels)} with none", where)
    classes, numbers = _number(distinct, class_names, where)
    splits = {split: _split(split, some, numbers, len(classes)) for split, some in found.items() if some}
    return ImageSet(
        name=name,
        classes=classes,
        train=splits.get("train"),
        validation=splits.get("validation"),
        test=splits["test"],
    )


def _number(
    labels: set[Label], class_names: Sequence[str], where: Path
) -> tuple[list[str], dict[Label, int]]:
    texts = sorted(label for label in labels if isinstance(label, str))
    whole = sorted(label for label in labels if isinstance(label, int))
    if texts and whole:
        raise _bad_labels("labels that are all names or all numbers", f"{texts[0]!r} and {whole[0]}", where)
    if texts:
        return texts, {label: number for number, label in enumerate(texts)}
    classes = list(class_names) or [str(number) for number in range(whole[-1] + 1)]
    if whole[0] < 0 or whole[-1] >= len(classes):
        got = f"{whole[0]} to {whole[-1]}"
        raise _bad_labels(f"labels of 0 to {len(classes) - 1}, the classes that have names", got, where)
    return classes, {label: int(label) for label in whole}


def _bad_labels(expected: str, got: str, where: Path) -> UserError:
    return UserError("unclear labels", expected=expected, got=got, where=str(where), mend="mend the labels")


def _split(name: str, rows: Sequence[Row], numbers: Mapping[Label, int], classes: int) -> Split:
    digest, status_of = xxhash.xxh3_64(), {}
    for row in rows:
        place = row.place
        if place.path not in status_of:
            status = place.path.stat()
            status_of[place.path] = f"{status.st_size}:{status.st_mtime_ns}"
        digest.update(
            f"{os.path.abspath(place.path)}:{status_of[place.path]}:{place.offset}:{place.size}\n".encode()
        )
    labels_N = torch.full((len(rows),), -1)
    classes_NC = torch.zeros(len(rows), classes, dtype=torch.bool)
    for number, row in enumerate(rows):
        if isinstance(row.label, tuple):
            classes_NC[number, [numbers[label] for label in row.label]] = True
        else:
            labels_N[number] = numbers[row.label]
    return Split(
        name=SPLIT_NAMES[name],
        read=FilePictures([row.place for row in rows]),
        labels_N=labels_N,
        captions=[row.captions for row in rows],
        groups=[row.group for row in rows],
        digest=digest.hexdigest(),
        classes_NC=classes_NC if isinstance(rows[0].label, tuple) else None,
    )
