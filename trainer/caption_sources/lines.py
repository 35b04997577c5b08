"""Text files: one caption a line, and the lines that tables are made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from protocol.errors import UserError
from trainer.caption_sources.files import cannot_read

BLOCK_TEXTS = 8192


class Block(NamedTuple):
    """Some captions of a file as they stand in it, and how far into the file their reading came."""

    texts: list[str]
    bytes_read: int


class Lines:
    """The lines of a UTF-8 file with their endings, counted. A byte order mark is no part of the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        """Of the last line handed out, from 1."""
        self.bytes_read = 0

    def __iter__(self) -> Iterator[str]:
        """Raises UserError that names the line, or what the system said."""
        try:
            with open(self.path, "rb") as file:
                for raw in file:
                    self.number += 1
                    self.bytes_read += len(raw)
                    yield self._decoded(raw)
        except OSError as error:
            raise cannot_read(self.path, error) from error

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                "captions can't be read",
                expected="UTF-8",
                got=f"byte 0x{error.object[error.start]:02x} in line {self.number}",
                where=str(self.path),
                mend=f"convert it, for example with `iconv -f latin1 -t utf-8 {self.path}`",
            ) from error


def read_lines(path: Path) -> Iterator[Block]:
    """One caption a line, wherever `str.splitlines` sees a line end. Raises UserError."""
    lines = Lines(path)
    texts: list[str] = []
    for line in lines:
        texts += line.splitlines()
        if len(texts) >= BLOCK_TEXTS:
            yield Block(texts, lines.bytes_read)
            texts = []
    yield Block(texts, lines.bytes_read)
