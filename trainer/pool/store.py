"""How the images of one segment come to the disk: the part of writing that differs between the formats."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trainer.pool.segment import Entry

WRITING = ".writing-"
"""Begins the name of everything that is not whole yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedGroup:
    """A group as it is to be stored. The tuples have one item an image."""

    group_id: int
    caption: str
    images: tuple[int, ...]
    """Their numbers."""
    pictures: tuple[bytes, ...]
    seeds: tuple[int, ...]
    guidance: tuple[float, ...]
    engine: str
    content: str


class Store(Protocol):
    """Written aside by `add`, put in place by `commit`; a segment counts once its index is there as well."""

    stem: str
    """Begins the names of a segment's files: STEM-000000.index.json."""

    def add(self, group: EncodedGroup, i: int) -> tuple[str, int]:
        """Writes one picture; returns its name and its offset."""

    def commit(self, number: int, entries: Sequence[Entry]) -> int:
        """Puts everything in its place and on the disk; returns the bytes of the shard, if there is one."""

    def finished(self, captions: Sequence[str]) -> None:
        """The segment counts now."""

    def remove(self, number: int, entries: Sequence[Entry]) -> None:
        """Deletes the files of a segment whose index is gone."""

    def recover(self, captions: Sequence[str]) -> None:
        """Puts right what a kill may have left. `captions`: of all segments that count."""

    def discard(self) -> None:
        """Drops what was added since the last commit."""
