"""Reads WebDataset shards that were made elsewhere: tar files in which the members of one image stand
together and share a key.

No member is ever extracted: a picture is read from its place in the shard, so a name can't lead anywhere.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from protocol.identity import normalise_caption
from trainer.pool.images import BYTES_MAX, READABLE_SUFFIXES
from trainer.pool.segment import Entry, Segment

TEXT_BYTES_MAX = 2**20
_BLOCK = tarfile.BLOCKSIZE


@dataclass
class _Sample:
    """The members of one key, so far."""

    key: str = ""
    picture: tarfile.TarInfo | None = None
    texts: dict[str, bytes] = field(default_factory=dict)


def scan_shard(path: Path) -> Segment:
    """The index of a shard that was made elsewhere: captions from KEY.txt, or `caption` in KEY.json, as
    img2dataset writes them; images of a caption are numbered later, in the order of shards and members."""
    status = path.stat()
    captions: dict[str, int] = {}
    entries: list[Entry] = []
    damaged: list[tuple[str, str]] = []
    with open(path, "rb") as file:
        for sample in _samples(file, status.st_size, damaged):
            if sample.picture is None:
                continue
            known = _json(sample)
            text = normalise_caption(_caption(sample, known))
            if not text:
                damaged.append((sample.picture.name, "no_caption"))
                continue
            entries.append(
                Entry(
                    caption=captions.setdefault(text, len(captions)),
                    image=_whole(known.get("image"), -1),
                    path=sample.picture.name,
                    offset=sample.picture.offset_data,
                    size=sample.picture.size,
                    digest="",
                    seed=seed if (seed := _whole(known.get("seed"), -1)) >= 0 else None,
                    guidance=None,
                    engine=None,
                )
            )
    return Segment(
        bytes=status.st_size,
        scanned=True,
        modified_ns=status.st_mtime_ns,
        content="",
        engines=(),
        captions=tuple(captions),
        groups=(),
        damaged=tuple(damaged),
        entries=tuple(entries),
    )


def _samples(file: Any, length: int, damaged: list[tuple[str, str]]) -> Iterator[_Sample]:
    """Consecutive members of one key. What is wrong with the file is noted, and ends it where it must."""
    sample = _Sample()
    for member in _members(file, length, damaged):
        place = PurePosixPath(member.name)
        if place.is_absolute() or ".." in place.parts:
            damaged.append((member.name, "outside"))
            continue
        stem, _, extension = place.name.partition(".")
        key = str(place.with_name(stem)) if stem else ""
        if key != sample.key:
            yield sample
            sample = _Sample(key)
        suffix = "." + extension.lower().rpartition(".")[2]
        if suffix in READABLE_SUFFIXES:
            if member.size > BYTES_MAX:
                damaged.append((member.name, "too_large"))
            else:
                sample.picture = member
        elif suffix in (".txt", ".json") and member.size <= TEXT_BYTES_MAX:
            file.seek(member.offset_data)  # tarfile seeks by itself for the next header
            sample.texts[suffix] = file.read(member.size)
    yield sample


def _members(file: Any, length: int, damaged: list[tuple[str, str]]) -> Iterator[tarfile.TarInfo]:
    """Plain files whose bytes are all there, until the end or until the file can't be followed further."""
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                end = member.offset_data + -(-max(member.size, 0) // _BLOCK) * _BLOCK
                if member.size < 0 or member.offset_data + member.size > length:
                    damaged.append((member.name, "truncated"))
                    return
                if member.isreg() and member.sparse is None:
                    yield member
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember every one
    except (tarfile.TarError, ValueError, OverflowError, OSError) as error:
        damaged.append((f"after byte {end}: {error}", "truncated"))
        return
    file.seek(end)
    # tarfile takes a damaged header for the end of the file, which really is two blocks of zeros
    if end and file.read(2 * _BLOCK).strip(b"\0"):
        damaged.append((f"after byte {end}", "truncated"))


def _json(sample: _Sample) -> dict[str, Any]:
    try:
        known = msgspec.json.decode(sample.texts.get(".json", b"{}"))
    except (msgspec.DecodeError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _caption(sample: _Sample, known: dict[str, Any]) -> str:
    if ".txt" in sample.texts:
        return sample.texts[".txt"].decode("utf-8", errors="replace")
    caption = known.get("caption")
    return caption if isinstance(caption, str) else ""


def _whole(value: Any, otherwise: int) -> int:
    return value if type(value) is int and 0 <= value < 2**32 else otherwise
