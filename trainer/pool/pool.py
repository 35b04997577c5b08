"""A pool opened for reading: what it is, and where its images are."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import UserError
from trainer.pool.about import About, read_about
from trainer.pool.damage import Damage
from trainer.pool.folders import scan_folders
from trainer.pool.index import PoolIndex
from trainer.pool.segment import INDEX_SUFFIX, Segment, read_segment, write_segment
from trainer.pool.shards import scan_shard


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Read once when it is opened; what is written to the folder afterwards is not seen."""

    folder: Path
    about: About | None
    """None for a pool that was made elsewhere."""
    index: PoolIndex
    damage: Damage
    """Also counts what is found while reading images."""


def open_pool(folder: Path, *, max_damaged: int | None) -> Pool:
    """Raises UserError where there is no pool, PoolDamagedError where too much of it can't be used."""
    if not folder.is_dir():
        raise UserError(
            "no pool",
            expected="a folder of tar shards, or of folders of pictures with a CSV",
            got="a file" if folder.exists() else "no such folder",
            where=str(folder),
            mend="fill it with `streamrep pool RUN.toml --out DIR`, or set pool.dir",
        )
    damage = Damage(folder, max_damaged)
    index = PoolIndex(_counted(read_segments(folder), damage))
    return Pool(folder=folder, about=read_about(folder), index=index, damage=damage)


def read_segments(folder: Path) -> Iterator[tuple[str, Segment]]:
    """(shard, index) of every segment in the order of names; an empty shard where every image is a file."""
    about = read_about(folder)
    if about is not None:
        is_sharded = about.format == "webdataset"
        # Also one that a writer has begun, or was killed at, has this suffix, behind a dot.
        for path in sorted(folder.glob(f"[!.]*-*{INDEX_SUFFIX}")):
            # The shard need not be there: then its images are missing, and counted as such.
            yield path.name.replace(INDEX_SUFFIX, ".tar") if is_sharded else "", read_segment(path)
    elif shards := sorted(folder.glob("*.tar")):
        yield from ((shard.name, _segment_of(shard)) for shard in shards)
    else:
        yield from (("", segment) for segment in scan_folders(folder))


def _segment_of(shard: Path) -> Segment:
    """The index of a shard that was made elsewhere, kept beside it until it changes."""
    path, status = shard.with_suffix(INDEX_SUFFIX), shard.stat()
    if path.exists():
        segment = read_segment(path)
        if (status.st_size, status.st_mtime_ns) == (segment.bytes, segment.modified_ns):
            return segment
    segment = scan_shard(shard)
    with contextlib.suppress(OSError):  # where the folder can't be written it is read through each time
        write_segment(path, segment)
    return segment


def _counted(segments: Iterator[tuple[str, Segment]], damage: Damage) -> Iterator[tuple[str, Segment]]:
    for file, segment in segments:
        for member, reason in segment.damaged:
            damage.count(f"{file}:{member}" if file else member, reason)
        yield file, segment
