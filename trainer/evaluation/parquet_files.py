"""Labelled Parquet files as the Hugging Face hub has them: train-*.parquet, validation-*.parquet and so on.

Columns: `image` (bytes, or a struct with `bytes`), `label`, or `labels` or `classes`, any of which may hold
lists, perhaps `caption` or `text`, and `group`. Parquet has no way to one row, so the pictures are copied
once into one file of the cache and read by their places.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from protocol.errors import UserError
from trainer.evaluation.image_set import Place, Row

IMAGE, LABELS, CAPTIONS, GROUP = (
    ("image", "img", "jpg"),
    ("label", "fine_label", "cls", "labels", "classes"),
    ("caption", "text"),
    "group",
)
BATCH_ROWS = 256


def read_parquet_rows(paths: Sequence[Path], cache: Path) -> tuple[list[Row], list[str]]:
    """The rows of one split's files, and the names of its classes where the files tell. Raises UserError."""
    rows: list[Row] = []
    names: list[str] = []
    for path in paths:
        parquet = _import_pyarrow(path)
        try:
            with parquet.ParquetFile(path) as file:
                names = names or _class_names(file.schema_arrow)
                rows += _read_file(path, file, cache)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
            raise UserError(
                "labelled pictures can't be read",
                expected="a whole Parquet file",
                got=str(error).splitlines()[0],
                where=str(path),
                mend="fetch it again",
            ) from error
    return rows, names


def _read_file(path: Path, file: Any, cache: Path) -> list[Row]:
    status = path.stat()
    key = xxhash.xxh3_64_hexdigest(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}".encode())
    pictures = cache / f"pictures-{key}"
    columns = [_find(file.schema_arrow.names, some, path) for some in (IMAGE, LABELS)]
    others = [name for name in (*CAPTIONS, GROUP) if name in file.schema_arrow.names]
    temporary = None if pictures.exists() else cache / f".{pictures.name}.{os.getpid()}"
    rows: list[Row] = []
    offset = 0
    cache.mkdir(parents=True, exist_ok=True)
    with open(temporary or os.devnull, "wb") as spool:
        for batch in file.iter_batches(BATCH_ROWS, columns=[*columns, *others], use_threads=False):
            for row in batch.to_pylist():
                value = row[columns[0]]
                data = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(data, bytes) or row[columns[1]] is None:
                    raise ValueError(f"row {len(rows)} has no picture in it, or no label")
                spool.write(data)
                captions = tuple(
                    text for name in CAPTIONS if (text := row.get(name)) and isinstance(text, str)
                )
                group = row.get(GROUP)
                place, label = Place(pictures, offset, len(data)), row[columns[1]]
                label = tuple(label) if isinstance(label, list) else label
                rows.append(Row(place, label, captions, "" if group is None else str(group)))
                offset += len(data)
        spool.flush()
        if temporary:
            os.fsync(spool.fileno())
    if temporary:
        temporary.replace(pictures)
    return rows


def _find(names: Sequence[str], wanted: Sequence[str], path: Path) -> str:
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise UserError(
            "a column is missing",
            expected=f"a column {' or '.join(wanted)}",
            got=", ".join(names),
            where=str(path),
            mend="rename the column",
        )
    return found


def _class_names(schema: Any) -> list[str]:
    """From the description that `datasets` writes into its files."""
    try:
        described = msgspec.json.decode((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = described["info"]["features"]
        label = next(features[name] for name in LABELS if name in features)
        # Of a list its items are described, under `feature`.
        return list(label.get("feature", label)["names"])
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError, StopIteration):
        return []


def _import_pyarrow(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "Parquet files need pyarrow",
            expected="the package pyarrow",
            got="none",
            where=str(path),
            mend="install it with `pip install 'streamrep[parquet]'`",
        ) from error
    return pyarrow.parquet
