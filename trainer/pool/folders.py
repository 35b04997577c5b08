"""Reads StableRep's layout as others make it: one folder a seed with the same relative paths in each, and a
CSV of path and caption without a heading."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from protocol.errors import UserError
from protocol.identity import caption_id, normalise_caption
from trainer.pool.images import READABLE_SUFFIXES
from trainer.pool.segment import Entry, Segment

_ROWS_A_SEGMENT = 100_000


def scan_folders(folder: Path) -> Iterator[Segment]:
    """The index of a pool that was made elsewhere, from its only CSV and its folders in the order of the
    numbers in their names. Whether each picture is there is found out when it is read.

    A caption that stands in several rows has the pictures of all of them. Raises UserError.
    """
    roots = sorted((path.name for path in folder.iterdir() if path.is_dir()), key=_by_numbers)
    roots = [name for name in roots if not name.startswith(".")]
    sheets = sorted(folder.glob("*.csv"))
    if len(sheets) != 1 or not roots:
        raise UserError(
            "no pool",
            expected="tar shards, or one CSV of path and caption beside folders of pictures",
            got=f"{len(sheets)} CSV files and {len(roots)} folders",
            where=str(folder),
            mend="fill it with `streamrep pool`, or point pool.dir at a pool",
        )
    rows: list[tuple[str, str]] = []
    damaged: list[tuple[str, str]] = []
    earlier: dict[int, int] = {}
    with open(sheets[0], encoding="utf-8-sig", errors="replace", newline="") as file:
        for row in csv.reader(line.replace("\0", "") for line in file):
            if len(row) < 2 or PurePosixPath(row[0]).suffix.lower() not in READABLE_SUFFIXES:
                continue  # a heading, or a row that StableRep's loader passes over as well
            if caption := normalise_caption(row[1]):
                rows.append((row[0], caption))
            else:
                damaged.append((row[0], "no_caption"))
            if len(rows) == _ROWS_A_SEGMENT:
                yield _segment(rows, roots, earlier, damaged)
                rows, damaged = [], []
    yield _segment(rows, roots, earlier, damaged)


def _segment(
    rows: list[tuple[str, str]], roots: list[str], earlier: dict[int, int], damaged: list[tuple[str, str]]
) -> Segment:
    """`earlier`: rows so far by caption id, which this continues."""
    captions: dict[str, int] = {}
    entries = []
    for path, caption in rows:
        before = earlier.get(known := caption_id(caption), 0)
        earlier[known] = before + 1
        place = captions.setdefault(caption, len(captions))
        for number, root in enumerate(roots, start=before * len(roots)):
            entries.append(Entry(place, number, f"{root}/{path}", 0, 0, "", None, None, None))
    return Segment(
        bytes=0,
        scanned=True,
        content="",
        engines=(),
        captions=tuple(captions),
        groups=(),
        damaged=tuple(damaged),
        entries=tuple(entries),
    )


def _by_numbers(name: str) -> tuple[list[int], str]:
    """seed_10 after seed_9; what has the same numbers by name."""
    return [int(number) for number in re.findall(r"\d+", name)[-1:]], name
