"""The captions of a source in one pass, whatever its files are."""

from collections.abc import Iterator
from pathlib import Path

from protocol.errors import UserError
from trainer.caption_sources.files import CaptionFiles
from trainer.caption_sources.lines import Block, read_lines
from trainer.caption_sources.parquet import read_parquet
from trainer.caption_sources.tables import Column, read_table


def read_source(files: CaptionFiles, column: Column) -> Iterator[Block]:
    """Blocks of raw texts, file after file; `bytes_read` counts through all of them. Raises UserError."""
    if files.kind == ".txt" and column != "":
        raise UserError(
            "a .txt file has no columns",
            expected="no captions.column",
            got=str(column),
            where=str(files.source),
            mend="leave it out, or name the file .csv or .tsv",
        )
    before = 0
    for path, (_, size, _) in zip(files.paths, files.stamps(), strict=True):
        for block in _read_file(path, files.kind, column):
            yield Block(block.texts, before + block.bytes_read)
        before += size


def _read_file(path: Path, kind: str, column: Column) -> Iterator[Block]:
    if kind == ".txt":
        return read_lines(path)
    if kind == ".parquet":
        return read_parquet(path, column)
    return read_table(path, kind, column)
