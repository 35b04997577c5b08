"""Writes StableRep's layout: a folder for every image number, the same paths in each, and the CSV.

StableRep's own loader passes over paths that don't end in .png, .jpg or .jpeg, so a pool for it is written
with `pool.picture = "png"` or "jpeg".
"""

import csv
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from protocol.identity import caption_id
from trainer.pool.images import SUFFIXES, PictureFormat
from trainer.pool.segment import Entry, sync_folder
from trainer.pool.store import WRITING, EncodedGroup

CSV_NAME = "captions.csv"


class FolderStore:
    """A segment is a number of files, and a row of the CSV for every caption that is new."""

    stem = "segment"

    def __init__(self, folder: Path, picture: PictureFormat) -> None:
        self._folder = folder
        self._suffix = SUFFIXES[picture]
        self._writing = folder / f"{WRITING}segment"
        self._captions: set[str] = set()

    def add(self, group: EncodedGroup, i: int) -> tuple[str, int]:
        """See `Store.add`."""
        path = f"seed_{group.images[i]:05d}/{self._relative_path(group.caption)}"
        target = self._writing / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            file.write(group.pictures[i])
            file.flush()
            os.fsync(file.fileno())
        return path, 0

    def commit(self, number: int, entries: Sequence[Entry]) -> int:
        """See `Store.commit`."""
        folders = set()
        for entry in entries:
            target = self._folder / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._writing / entry.path).replace(target)
            folders.add(target.parent)
        for folder in folders:
            sync_folder(folder)
        shutil.rmtree(self._writing, ignore_errors=True)
        return 0

    def finished(self, captions: Sequence[str]) -> None:
        """See `Store.finished`: the CSV gets their rows."""
        new = [caption for caption in captions if caption not in self._captions]
        self._captions.update(new)
        with open(self._folder / CSV_NAME, "a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self._row(caption) for caption in new)

    def remove(self, number: int, entries: Sequence[Entry]) -> None:
        """See `Store.remove`."""
        for entry in entries:
            (self._folder / entry.path).unlink(missing_ok=True)

    def recover(self, captions: Sequence[str]) -> None:
        """See `Store.recover`: the CSV is written anew, since its last row may be cut. Pictures without an
        index are drawn again and replaced."""
        known = dict.fromkeys(captions)
        self._captions = set(known)
        temporary = self._folder / f"{WRITING}{CSV_NAME}"
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(self._row(caption) for caption in known)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._folder / CSV_NAME)

    def discard(self) -> None:
        """See `Store.discard`."""
        shutil.rmtree(self._writing, ignore_errors=True)

    def _row(self, caption: str) -> tuple[str, str]:
        return self._relative_path(caption), caption

    def _relative_path(self, caption: str) -> str:
        """The same in every folder: decided by the caption alone, and few to a directory."""
        name = f"{caption_id(caption):016x}"
        return f"{name[:2]}/{name[2:4]}/{name}{self._suffix}"
