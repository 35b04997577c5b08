"""A segment: the images that were written together, and the index file that makes them count."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from protocol.errors import UserError

INDEX_SUFFIX = ".index.json"


class Entry(Struct, frozen=True, array_like=True):
    """One image of a segment."""

    caption: int
    """Place in the segment's `captions`."""
    image: int
    """Number of the image among those of its caption: the view that it is."""
    path: str
    """Name of the member in the shard, or path below the pool's folder."""
    offset: int
    """Of the picture's first byte in the shard; 0 in a folder."""
    size: int
    """Bytes of the picture; 0 where it was never looked at."""
    digest: str
    """xxh3-64 of these bytes, 16 hex digits; empty where they were never read."""
    seed: int | None
    guidance: float | None
    engine: int | None
    """Place in the segment's `engines`."""


class Segment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The index of one segment, as it stands in its file."""

    version: int = 1
    bytes: int
    """Of the shard; 0 in a folder."""
    scanned: bool = False
    """Read from a shard that was made elsewhere; written anew when that shard changes."""
    modified_ns: int = 0
    """Of such a shard."""
    content: str
    """Content hash of the workers; empty where it is not known."""
    engines: tuple[str, ...]
    captions: tuple[str, ...]
    groups: tuple[tuple[int, int], ...]
    """(group_id, how many of its images are here, from the first one on)."""
    run: str = ""
    """Folder of the run that recorded it; empty where no run did."""
    step: int = 0
    """Of that run, the last whose groups are here."""
    damaged: tuple[tuple[str, str], ...] = ()
    """(member, reason) of what could not be taken while scanning."""
    entries: tuple[Entry, ...]


def read_segment(path: Path) -> Segment:
    """Raises UserError where the file is none of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Segment)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            "pool's index can't be read",
            expected="an index that this version wrote",
            got=str(error),
            where=str(path),
            mend="remove it and its shard, and fill the pool again",
        ) from error


def write_segment(path: Path, segment: Segment) -> None:
    """By rename: from then on the segment counts."""
    write_whole(path, msgspec.json.encode(segment))


def write_whole(path: Path, data: bytes) -> None:
    """Through a temporary file in the same folder; both reach the disk."""
    temporary = path.with_name(f".writing-{path.name}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Brings renames in that folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
