"""One column of a Parquet file, read by pyarrow a few thousand rows at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol.errors import UserError
from trainer.caption_sources.files import cannot_read
from trainer.caption_sources.lines import BLOCK_TEXTS, Block
from trainer.caption_sources.tables import Column, find_usual, no_such_column, unclear_column


def read_parquet(path: Path, column: Column) -> Iterator[Block]:
    """The texts of a column; a null is an empty caption. Raises UserError.

    Without a name it is the one of usual name, else the only one that holds text. `bytes_read` is the share
    of rows read, as bytes of the file.
    """
    pyarrow = _import_pyarrow(path)
    rows = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            name = _find_column(pyarrow, file.schema_arrow, column, path)
            scale = path.stat().st_size / max(1, file.metadata.num_rows)
            # One thread: reading ahead would hold row groups that nobody has asked for yet.
            for batch in file.iter_batches(BLOCK_TEXTS, columns=[name], use_threads=False):
                rows += batch.num_rows
                texts = batch.column(name).to_pylist()
                yield Block([text or "" for text in texts], int(rows * scale))
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(path, rows, error) from error
    except OSError as error:
        # Pyarrow also raises a plain OSError for a file that is cut off.
        raise (cannot_read(path, error) if error.errno else _damaged(path, rows, error)) from error


def _find_column(pyarrow: Any, schema: Any, column: Column, path: Path) -> str:
    names: list[str] = schema.names
    texts = [name for index, name in enumerate(names) if _holds_text(pyarrow, schema.field(index).type)]
    if isinstance(column, int):
        if column > len(names):
            raise no_such_column(f"one of {len(names)} columns", str(column), path)
        name = names[column - 1]
    elif column:
        if column not in names:
            raise no_such_column(f"one of {', '.join(names)}", column, path)
        name = column
    else:
        usual = find_usual(texts)
        if usual is None and len(texts) != 1:
            raise unclear_column(names, path)
        name = texts[usual or 0]
    if name not in texts or names.count(name) > 1:
        kind = schema.field(names.index(name)).type
        raise UserError(
            "not a column of captions",
            expected=f"one column of strings, of {', '.join(texts) or 'which there is none'}",
            got=f"{names.count(name)} named {name}, of type {kind}",
            where=str(path),
            mend="set captions.column to another",
        )
    return name


def _holds_text(pyarrow: Any, kind: Any) -> bool:
    types = pyarrow.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _import_pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "Parquet files need pyarrow",
            expected="the package pyarrow",
            got="none",
            where=str(path),
            mend="install it with `pip install 'streamrep[parquet]'`",
        ) from error
    return pyarrow


def _damaged(path: Path, rows: int, error: Exception) -> UserError:
    lines = str(error).splitlines()
    return UserError(
        "captions can't be read",
        expected="a whole Parquet file",
        got=f"{lines[0] if lines else type(error).__name__} (after {rows} rows)",
        where=str(path),
        mend="fetch or write the file again",
    )
