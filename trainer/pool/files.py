"""Reads pictures of a pool by their place. Nothing outside the pool's folder is ever opened."""

import os
from collections import OrderedDict
from pathlib import Path

import xxhash
from msgspec import Struct

from trainer.errors import DamagedImageError
from trainer.pool.images import BYTES_MAX

OPEN_FILES = 64


class Place(Struct, frozen=True, array_like=True):
    """Where a picture is. In a shard `member` is its name, for people."""

    file: str
    """Below the pool's folder."""
    offset: int
    size: int
    """0 is the whole file."""
    digest: str
    """xxh3-64 of its bytes; empty where it is not known."""
    member: str

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.file}:{self.member}" if self.member else self.file


class PoolFiles:
    """Reads the files below one folder, and keeps a few of them open."""

    def __init__(self, folder: Path) -> None:
        self._root = os.path.realpath(folder)
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, place: Place) -> bytes:
        """The picture's bytes as they were written. Raises DamagedImageError."""
        try:
            descriptor = self._descriptor(place.file)
            size = place.size or os.fstat(descriptor).st_size
            if size > BYTES_MAX:
                raise DamagedImageError("too_large", f"{size} bytes, at most {BYTES_MAX} are read")
            data = os.pread(descriptor, size, place.offset)
        except FileNotFoundError as error:
            raise DamagedImageError("missing", "no such file") from error
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise DamagedImageError("unreadable", str(error)) from error
        if len(data) < size or not data:
            raise DamagedImageError("truncated", f"{len(data)} of {size} bytes")
        if place.digest and xxhash.xxh3_64_hexdigest(data) != place.digest:
            raise DamagedImageError("checksum", f"xxh3-64 is not {place.digest}")
        return data

    def _descriptor(self, file: str) -> int:
        if (known := self._open.get(file)) is not None:
            self._open.move_to_end(file)
            return known
        path = os.path.realpath(os.path.join(self._root, file))  # links included
        if os.path.commonpath([self._root, path]) != self._root:
            raise DamagedImageError("outside", "the path leaves the pool's folder")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would hold an opener for ever
        self._open[file] = descriptor
        if len(self._open) > OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        """Closes what is open."""
        while self._open:
            os.close(self._open.popitem()[1])
