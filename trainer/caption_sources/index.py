"""The captions of a large source as files: texts one after the other, and where each of them begins.

    texts    UTF-8, a newline behind each (a caption may hold newlines itself: `offsets` decides)
    offsets  int64 little-endian, captions + 1 of them: caption i is texts[offsets[i] : offsets[i + 1] - 1]
    index.json  what it was made of and what it holds

Offsets are mapped and texts are read where they lie, so that memory does not grow with their number.
"""

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import msgspec
import numpy as np
from msgspec import Struct

from protocol.errors import UserError
from protocol.identity import caption_id
from trainer.caption_sources.cleaning import CaptionCounts
from trainer.caption_sources.files import Stamp

TEXTS, OFFSETS, HEADER = "texts", "offsets", "index.json"
OFFSET = np.dtype("<i8")
INDEX_VERSION = 1
"""Rises when the same files would give other captions, or the layout changes."""


class IndexHeader(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """index.json. The first four fields are the key: an index is used only where all of them still hold."""

    version: int
    source: str
    """Absolute path."""
    column: str | int
    stamps: tuple[Stamp, ...]
    """Name, bytes and time of change of every file."""
    counts: CaptionCounts
    text_bytes: int
    digest: str
    """xxh3-128 of the captions joined by newlines: what `Captions` in memory has for the same list."""

    def is_of(self, source: str, column: str | int, stamps: tuple[Stamp, ...]) -> bool:
        """Whether it was made of these files as they are now."""
        key = (self.version, self.source, self.column, self.stamps)
        return key == (INDEX_VERSION, source, column, stamps)


class IndexedCaptions:
    """Distinct captions with their ids, in the order of their first occurrence, off an index folder."""

    def __init__(self, folder: Path, header: IndexHeader) -> None:
        """Raises UserError for files that are not as long as the header says."""
        count = header.counts.distinct
        for name, expected in ((TEXTS, header.text_bytes), (OFFSETS, (count + 1) * OFFSET.itemsize)):
            got = (folder / name).stat().st_size if (folder / name).is_file() else 0
            if got != expected:
                raise _damaged(folder, f"{name} of {expected} bytes", f"{got} bytes")
        self.counts = header.counts
        self.digest = header.digest
        self.texts: Sequence[str] = _Texts(folder, count)
        self.ids: Sequence[int] = _Ids(self.texts)

    def __len__(self) -> int:
        return len(self.texts)


def read_header(folder: Path) -> IndexHeader | None:
    """The header of an index; None where there is none, or one of another version. Raises UserError."""
    try:
        data = (folder / HEADER).read_bytes()
        if msgspec.json.decode(data)["version"] != INDEX_VERSION:
            return None
        return msgspec.json.decode(data, type=IndexHeader)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise _damaged(folder, "a header that this version wrote", str(error)) from error


class _Texts(Sequence[str]):
    """Safe to read from several threads at once."""

    def __init__(self, folder: Path, count: int) -> None:
        self._count = count
        self._offsets = np.memmap(folder / OFFSETS, dtype=OFFSET, mode="r", shape=(count + 1,))
        self._file = os.open(folder / TEXTS, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(self._count)[index]]
        place = range(self._count)[index]
        start, end = int(self._offsets[place]), int(self._offsets[place + 1]) - 1
        # Not mapped as the offsets are: pages touched by chance would pile up in the process's memory.
        return os.pread(self._file, end - start, start).decode()


class _Ids(Sequence[int]):
    """Computed from the texts: cheaper than keeping them."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [caption_id(text) for text in self._texts[index]]
        return caption_id(self._texts[index])


def _damaged(folder: Path, expected: str, got: str) -> UserError:
    return UserError(
        "the index of captions is damaged",
        expected=expected,
        got=got,
        where=str(folder),
        mend="delete that folder; it is made again from the captions",
    )
