"""Makes an index of captions in three passes, none of which holds them all.

files ─gather→ every caption, its length, its id ─keep_first→ one byte a caption ─compact→ texts, offsets

Memory is one block of texts, the ids of one bucket, and the byte a caption.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash

from protocol.identity import caption_id
from trainer.caption_sources.cleaning import CaptionCounts, Cleaner
from trainer.caption_sources.index import OFFSET, OFFSETS, TEXTS
from trainer.caption_sources.lines import Block

Number = TypeVar("Number", np.int32, np.int64)

ALL_TEXTS, ALL_LENGTHS, ALL_IDS = "all.texts", "all.lengths", "all.ids"
LENGTH: np.dtype[np.int32] = np.dtype("<i4")
ID: np.dtype[np.int64] = np.dtype("<i8")
BUCKET_IDS = 1_000_000
"""Ids sorted at once when duplicates are looked for."""
CHUNK_IDS = 1_000_000
CHUNK_TEXTS = 16_384

Report = Callable[[int, int], None]
"""Told after every block: captions and bytes read so far. May raise to give up."""


def build_index(blocks: Iterable[Block], folder: Path, report: Report) -> tuple[CaptionCounts, int, str]:
    """Writes `texts` and `offsets` into `folder`; returns counts, bytes of texts and digest.

    Of texts with the same id the first stays, in its place. Raises OSError, what reading and `report` raise.
    """
    cleaner = Cleaner()
    gathered = gather(blocks, folder, cleaner, report)
    keep = keep_first(folder / ALL_IDS, gathered)
    text_bytes, digest = compact(folder, keep)
    for name in (ALL_TEXTS, ALL_LENGTHS, ALL_IDS):
        (folder / name).unlink()
    return cleaner.counts(int(keep.sum())), text_bytes, digest


def gather(blocks: Iterable[Block], folder: Path, cleaner: Cleaner, report: Report) -> int:
    """Writes every caption with its length (newline included) and id; returns how many there are."""
    gathered = 0
    with (
        open(folder / ALL_TEXTS, "wb") as texts,
        open(folder / ALL_LENGTHS, "wb") as lengths,
        open(folder / ALL_IDS, "wb") as ids,
    ):
        for block in blocks:
            captions = [caption for caption in map(cleaner.clean, block.texts) if caption]
            encoded = [caption.encode() + b"\n" for caption in captions]
            texts.writelines(encoded)
            lengths.write(np.array([len(raw) for raw in encoded], dtype=LENGTH).tobytes())
            ids.write(np.array([caption_id(caption) for caption in captions], dtype=ID).tobytes())
            gathered += len(captions)
            report(gathered, block.bytes_read)
    return gathered


def keep_first(ids: Path, count: int) -> npt.NDArray[np.bool_]:
    """bool [count]: whether an id is the first of its kind. Ids are sorted a bucket at a time."""
    keep = np.zeros(count, dtype=np.bool_)
    buckets = -(-count // BUCKET_IDS)
    for bucket in range(buckets):
        places, values = [], []
        for start, chunk in _chunks(ids, ID, CHUNK_IDS):
            inside = np.flatnonzero(chunk % buckets == bucket)
            places.append(inside + start)
            values.append(chunk[inside])
        # The index that numpy returns is that of the first occurrence.
        _, first = np.unique(np.concatenate(values), return_index=True)
        keep[np.concatenate(places)[first]] = True
    return keep


def compact(folder: Path, keep: npt.NDArray[np.bool_]) -> tuple[int, str]:
    """Writes the kept texts and their offsets; returns bytes of texts, and the digest of all of them."""
    digest, end, last = xxhash.xxh3_128(), 0, b""
    with (
        open(folder / ALL_TEXTS, "rb") as all_texts,
        open(folder / TEXTS, "wb") as texts,
        open(folder / OFFSETS, "wb") as offsets,
    ):
        offsets.write(np.zeros(1, dtype=OFFSET).tobytes())
        for start, lengths in _chunks(folder / ALL_LENGTHS, LENGTH, CHUNK_TEXTS):
            kept = keep[start : start + len(lengths)]
            data = _kept_bytes(all_texts, lengths, kept)
            texts.write(data)
            ends = end + np.cumsum(lengths[kept], dtype=OFFSET)
            offsets.write(ends.tobytes())
            end += len(data)
            if data:
                # Captions are joined by newlines and not ended by them: the last one is held back.
                digest.update(last + data[:-1])
                last = data[-1:]
    return end, digest.hexdigest()


def _kept_bytes(all_texts: IO[bytes], lengths: npt.NDArray[np.int32], kept: npt.NDArray[np.bool_]) -> bytes:
    data = all_texts.read(int(lengths.sum(dtype=np.int64)))
    if kept.all():
        return data
    return np.frombuffer(data, dtype=np.uint8)[np.repeat(kept, lengths)].tobytes()


def _chunks(path: Path, kind: np.dtype[Number], size: int) -> Iterator[tuple[int, npt.NDArray[Number]]]:
    """(index of the first, numbers) after numbers of a file."""
    start = 0
    with open(path, "rb") as file:
        while data := file.read(size * kind.itemsize):
            chunk = np.frombuffer(data, dtype=kind)
            yield start, chunk
            start += len(chunk)
