"""Pictures in folders: SPLIT/CLASS/... or CLASS/..., as ImageNet and most small sets are unpacked.

A captions.csv beside them adds captions, and groups where it has such a column; several rows of one path are
several captions of one picture.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import UserError
from trainer.evaluation.image_set import SPLIT_NAMES, Place, Row, SplitName
from trainer.pool.images import READABLE_SUFFIXES

TABLE = "captions.csv"


def read_folder(folder: Path) -> dict[SplitName, list[Row]]:
    """Rows by split, in the order of their names. Folders without splits are all test. Raises UserError."""
    told = _read_table(folder / TABLE)
    children = _folders(folder)
    splits = {child: SPLIT_NAMES[child.name] for child in children if child.name in SPLIT_NAMES}
    rows: dict[SplitName, list[Row]] = {}
    for child in splits or {folder: "test"}:
        some = rows.setdefault(splits.get(child, "test"), [])
        for class_folder in _folders(child):
            for path in sorted(class_folder.rglob("*")):
                if path.suffix.lower() in READABLE_SUFFIXES and path.is_file():
                    captions, group = told.pop(path.relative_to(folder).as_posix(), ((), ""))
                    some.append(Row(Place(path), class_folder.name, captions, group))
    if told:
        raise UserError(
            "a captioned picture is missing",
            expected="paths below the folder, SPLIT/CLASS/... or CLASS/...",
            got=next(iter(told)),
            where=str(folder / TABLE),
            mend="mend that row",
        )
    return rows


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _read_table(path: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """Captions and group by path; nothing where there is no table."""
    told: dict[str, tuple[tuple[str, ...], str]] = {}
    for name, caption, group in _table_rows(path) if path.is_file() else ():
        captions, _ = told.get(name, ((), ""))
        told[name] = ((*captions, caption) if caption else captions, group)
    return told


def _table_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"path"} < set(reader.fieldnames or ()) <= {"path", "caption", "group"}:
            raise UserError(
                "unknown columns",
                expected="a first row of path, caption and group, the last two as there are",
                got=", ".join(reader.fieldnames or ()) or "nothing",
                where=str(path),
                mend="name the columns so",
            )
        for row in reader:
            yield row["path"], row.get("caption") or "", row.get("group") or ""
