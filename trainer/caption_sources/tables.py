"""One column of a table of text.

.csv  RFC 4180: commas, fields in double quotes where they hold commas, quotes or line ends
.tsv  tabs and nothing else: a quote is a character as any other, which is how CC3M and CC12M are published
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from protocol.errors import UserError
from trainer.caption_sources.lines import BLOCK_TEXTS, Block, Lines

USUAL_NAMES = ("caption", "captions", "text", "prompt")
"""Columns that are found without being named, in any case of letters."""
Column = str | int
"""A name; a number from 1; or "" for the one that is plain to see."""


def read_table(path: Path, kind: str, column: Column) -> Iterator[Block]:
    """The texts of a column of a .csv or .tsv file.

    A column that is named has the first row for a header; one with a number has none. Raises UserError for
    a column that isn't there or isn't clear, and for a row of another length than the first, with its line.
    """
    lines = Lines(path)
    rows = _csv_rows(lines) if kind == ".csv" else _tsv_rows(lines)
    first = next((row for row in rows if row), None)
    if first is None:
        return
    place, is_header = find_column(first, column, path)
    texts = [] if is_header else [first[place]]
    for row in rows:
        if not row:
            continue
        if len(row) != len(first):
            raise UserError(
                "captions can't be read",
                expected=f"{len(first)} columns, as in the first row",
                got=f"{len(row)} in line {lines.number}",
                where=str(path),
                mend="mend that line",
            )
        texts.append(row[place])
        if len(texts) >= BLOCK_TEXTS:
            yield Block(texts, lines.bytes_read)
            texts = []
    yield Block(texts, lines.bytes_read)


def find_column(first: Sequence[str], column: Column, path: Path) -> tuple[int, bool]:
    """Index of the captions' column, and whether the first row is a header. Raises UserError."""
    if isinstance(column, int):
        if column > len(first):
            raise no_such_column(f"one of {len(first)} columns", str(column), path)
        return column - 1, False
    if column:
        if column not in first:
            raise no_such_column(f"one of {_listed(first)} in the first row", column, path)
        return first.index(column), True
    usual = find_usual(first)
    if usual is not None:
        return usual, True
    if len(first) == 1:
        return 0, False
    # CC3M is caption and URL, CC12M URL and caption, both without a header.
    texts = [index for index, cell in enumerate(first) if not cell.startswith(("http://", "https://"))]
    if len(first) == 2 and len(texts) == 1:
        return texts[0], False
    raise unclear_column(first, path)


def find_usual(names: Sequence[str]) -> int | None:
    """Index of the column with a usual name, if there is exactly one."""
    found = [index for index, name in enumerate(names) if name.strip().lower() in USUAL_NAMES]
    return found[0] if len(found) == 1 else None


def no_such_column(expected: str, got: str, path: Path) -> UserError:
    """The column that was asked for isn't in the file."""
    return UserError(
        "no such column",
        expected=expected,
        got=got,
        where=str(path),
        mend="set captions.column to a name of the first row, or to a number from 1 where there is no header",
    )


def unclear_column(names: Sequence[str], path: Path) -> UserError:
    """Nobody said which column holds the captions, and it can't be seen."""
    return UserError(
        "captions can't be told from other columns",
        expected=f"a column named {' or '.join(USUAL_NAMES)}, or captions.column",
        got=_listed(names),
        where=str(path),
        mend="set captions.column to a name, or to a number from 1 where there is no header",
    )


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 40 else name[:39] + "…" for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _tsv_rows(lines: Lines) -> Iterator[list[str]]:
    """Empty lists for empty lines."""
    for line in lines:
        bare = line.rstrip("\r\n")
        yield bare.split("\t") if bare else []


def _csv_rows(lines: Lines) -> Iterator[list[str]]:
    """Empty lists for empty lines."""
    try:
        yield from csv.reader(lines, strict=True)
    except csv.Error as error:
        raise UserError(
            "captions can't be read",
            expected="comma-separated values (RFC 4180)",
            got=f"{error} in line {lines.number}",
            where=str(lines.path),
            mend="mend that line, or name the file .tsv if its columns are separated by tabs",
        ) from error
