"""Answers of a ledger on paper: an aligned table for people, CSV and JSON for programs."""

import csv
import itertools
import json
from typing import Any, TextIO

from trainer.ledger_reader import Answer

WIDTH_MAX = 60
FORMATS = ("table", "csv", "json")


def write_answer(answer: Answer, form: str, out: TextIO, limit: int | None = None) -> None:
    """Writes at most `limit` rows in that form, and in a table says whether there are more."""
    match form:
        case "csv":
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(answer.columns)
            writer.writerows(itertools.islice(answer.rows, limit))
        case "json":
            _write_json(answer, out, limit)
        case _:
            _write_table(answer, out, limit)


def _write_json(answer: Answer, out: TextIO, limit: int | None) -> None:
    """A list of objects, one a line, so that a long one never has to be held."""
    separator = "[\n"
    for row in itertools.islice(answer.rows, limit):
        named = dict(zip(answer.columns, row, strict=True))
        out.write(f"{separator}  {json.dumps(named, ensure_ascii=False)}")
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_table(answer: Answer, out: TextIO, limit: int | None) -> None:
    rows = list(itertools.islice(answer.rows, limit))
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(answer.columns, *cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(widths))]

    def line(texts: list[str]) -> str:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(texts, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip() + "\n"

    out.write(line(list(answer.columns)))
    out.writelines(map(line, cells))
    if limit is not None and next(answer.rows, None) is not None:
        out.write(f"... the first {limit} rows; --limit 0 shows all\n")


def _cell(value: Any) -> str:
    """One short line, whatever a caption holds: control characters would move the cursor."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
    return text if len(text) <= WIDTH_MAX else text[: WIDTH_MAX - 1] + "…"
