"""Pictures in folders: SPLIT/CLASS/... or CLASS/..., as ImageNet and most small sets are unpacked.

A captions.csv beside them adds captions, and groups where it has such a column; several rows of one path are
several captions of one picture. With a labels.csv of path and label the pictures lie anywhere below, or below
SPLIT/, and have the classes that it says: several rows of a path are several, an empty label is none.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import UserError
from trainer.evaluation.image_set import SPLIT_NAMES, Place, Row, SplitName
from trainer.pool.images import READABLE_SUFFIXES

TABLE, LABELS_TABLE = "captions.csv", "labels.csv"


def read_folder(folder: Path) -> dict[SplitName, list[Row]]:
    """Rows by split, in the order of their names. Folders without splits are all test. Raises UserError."""
    told = _read_captions(folder / TABLE)
    has_labels = (folder / LABELS_TABLE).is_file()
    labels = _read_labels(folder / LABELS_TABLE) if has_labels else {}
    children = _folders(folder)
    splits = {child: SPLIT_NAMES[child.name] for child in children if child.name in SPLIT_NAMES}
    rows: dict[SplitName, list[Row]] = {}
    for child in splits or {folder: "test"}:
        some = rows.setdefault(splits.get(child, "test"), [])
        for class_folder in [child] if has_labels else _folders(child):
            for path in sorted(class_folder.rglob("*")):
                if path.suffix.lower() not in READABLE_SUFFIXES or not path.is_file():
                    continue
                name = path.relative_to(folder).as_posix()
                if has_labels and name not in labels:
                    raise _disagree("a picture is not in the table", f"a row of {name}", "none", folder)
                label = labels.pop(name) if has_labels else class_folder.name
                captions, group = told.pop(name, ((), ""))
                some.append(Row(Place(path), label, captions, group))
    for table, left in ((TABLE, told), (LABELS_TABLE, labels)):
        if left:
            expected = "paths of pictures below the folder, those of a split where it has splits"
            raise _disagree("a picture of the table is missing", expected, next(iter(left)), folder, table)
    return rows


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _disagree(what: str, expected: str, got: str, folder: Path, table: str = LABELS_TABLE) -> UserError:
    return UserError(
        what, expected=expected, got=got, where=str(folder / table), mend="mend the table or the folder"
    )


def _read_captions(path: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """Captions and group by path; nothing where there is no table."""
    told: dict[str, tuple[tuple[str, ...], str]] = {}
    for row in _table_rows(path, ("caption", "group")) if path.is_file() else ():
        captions, _ = told.get(row["path"], ((), ""))
        caption = row.get("caption")
        told[row["path"]] = ((*captions, caption) if caption else captions, row.get("group") or "")
    return told


def _read_labels(path: Path) -> dict[str, tuple[str, ...]]:
    """Labels by path."""
    labels: dict[str, tuple[str, ...]] = {}
    for row in _table_rows(path, ("label",)):
        known = labels.get(row["path"], ())
        labels[row["path"]] = (*known, row["label"]) if row["label"] else known
    return labels


def _table_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if not {"path"} < set(reader.fieldnames or ()) <= {"path", *columns}:
            raise UserError(
                "unknown columns",
                expected=f"a first row of path and {', '.join(columns)}"
                + (", as there are" if len(columns) > 1 else ""),
                got=", ".join(reader.fieldnames or ()) or "nothing",
                where=str(path),
                mend="name the columns so",
            )
        yield from reader
