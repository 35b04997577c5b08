"""Which files a caption source is: one, or a folder of shards of one kind."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import UserError

KINDS = (".txt", ".csv", ".tsv", ".parquet")

Stamp = tuple[str, int, int]
"""Name, size in bytes, time of change in nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class CaptionFiles:
    """The files of a source in the order they are read: shards by name."""

    source: Path
    kind: str
    """One of `KINDS`."""
    paths: tuple[Path, ...]

    def stamps(self) -> tuple[Stamp, ...]:
        """What a change of the files is known by. Raises UserError for one that has gone."""
        return tuple((path.name, *_size_and_time(path)) for path in self.paths)

    @property
    def total_bytes(self) -> int:
        """Of all files, as they lie on the disk."""
        return sum(size for _, size, _ in self.stamps())


def find_files(source: str) -> CaptionFiles:
    """The files of `captions.source`. Hidden files of a folder are left alone. Raises UserError."""
    path = Path(source)
    expected = f"a file ending in {', '.join(KINDS)}, or a folder of such files"
    mend = "set captions.source to such a file or folder, or to `embedded`"
    if not source or not path.exists():
        raise UserError("no captions", expected=expected, got="no such file", where=source, mend=mend)
    if path.is_dir():
        shards = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        paths = tuple(shard for shard in shards if kind_of(shard) in KINDS)
        got = "a folder without any"
    else:
        paths = (path,) if kind_of(path) in KINDS else ()
        got = f"one ending in {path.suffix!r}"
    if not paths:
        raise UserError("no captions", expected=expected, got=got, where=source, mend=mend)
    kinds = Counter(map(kind_of, paths))
    if len(kinds) > 1:
        raise UserError(
            "shards of several kinds",
            expected="a folder whose caption files are all of one kind",
            got=", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
            where=source,
            mend="move what is no shard elsewhere, or name one file",
        )
    return CaptionFiles(source=path, kind=kind_of(paths[0]), paths=paths)


def kind_of(path: Path) -> str:
    """The suffix that says how a file is read, in lower case."""
    return path.suffix.lower()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise cannot_read(path, error) from error
    return status.st_size, status.st_mtime_ns


def cannot_read(path: Path, error: OSError) -> UserError:
    """A file that the system won't give."""
    return UserError(
        "captions can't be read",
        expected="a file that can be read",
        got=error.strerror or str(error),
        where=str(path),
        mend="check its permissions and the disk",
    )
