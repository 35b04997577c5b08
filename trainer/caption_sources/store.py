"""Where indexes are kept: one for each source and column, made when it is first needed or its files changed.

Made in a folder aside and renamed, under a lock, so that nobody ever opens half of one and two processes do
not make the same one.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from protocol.errors import UserError
from protocol.identity import digest_of
from trainer.caption_sources.build import build_index
from trainer.caption_sources.files import CaptionFiles
from trainer.caption_sources.index import (
    HEADER,
    INDEX_VERSION,
    OFFSETS,
    TEXTS,
    IndexedCaptions,
    IndexHeader,
    read_header,
)
from trainer.caption_sources.read import read_source
from trainer.errors import StopRequestedError
from trainer.progress import duration

Say = Callable[[str], None]
Stopped = Callable[[], bool]

SAY_SECONDS = 5.0
LOCK_SECONDS = 0.2


class IndexStore:
    """A folder of indexes. `say` hears what takes long; once `stopped` answers true the work is given up."""

    def __init__(
        self, folder: Path, say: Say, stopped: Stopped, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._say = say
        self._stopped = stopped
        self._clock = clock

    def open(self, files: CaptionFiles, column: str | int) -> IndexedCaptions:
        """The captions of these files as they are now. Raises UserError, StopRequestedError."""
        source = str(files.source.resolve())
        name = f"{Path(source).stem}-{digest_of([source, column])[:12]}"
        folder = self._folder / name
        header = read_header(folder)
        if header is None or not header.is_of(source, column, files.stamps()):
            header = self._make(files, column, source, folder)
        return IndexedCaptions(folder, header)

    def _make(self, files: CaptionFiles, column: str | int, source: str, folder: Path) -> IndexHeader:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock(folder):
                header = read_header(folder)  # another process may have made it meanwhile
                if header is None or not header.is_of(source, column, files.stamps()):
                    header = self._build(files, column, source, folder)
                return header
        except OSError as error:
            raise UserError(
                "cannot write the index of captions",
                expected="a folder that can be written, with room for twice the captions",
                got=error.strerror or str(error),
                where=str(self._folder),
                mend="choose another with --captions.index",
            ) from error

    def _build(self, files: CaptionFiles, column: str | int, source: str, folder: Path) -> IndexHeader:
        building = folder.with_name(f".building-{folder.name}")
        shutil.rmtree(building, ignore_errors=True)  # of a process that was killed: this one has the lock
        building.mkdir()
        try:
            stamps = files.stamps()
            report = _Report(files, self._say, self._stopped, self._clock)
            counts, text_bytes, digest = build_index(read_source(files, column), building, report)
            if files.stamps() != stamps:
                raise _changed(files)
            header = IndexHeader(
                version=INDEX_VERSION,
                source=source,
                column=column,
                stamps=stamps,
                counts=counts,
                text_bytes=text_bytes,
                digest=digest,
            )
            (building / HEADER).write_bytes(msgspec.json.format(msgspec.json.encode(header)))
            for path in (building / TEXTS, building / OFFSETS, building / HEADER, building):
                _sync(path)
            _replace(folder, building)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        self._say(f"indexed {files.source}: {counts}; kept in {folder}")
        return header

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        with open(folder.with_name(f".{folder.name}.lock"), "a+b") as file:
            waiting = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waiting:
                        self._say("waiting for another process that indexes the same captions")
                    waiting = True
                    _give_up_when(self._stopped)
                    time.sleep(LOCK_SECONDS)
            yield


class _Report:
    """Says how far the reading has come, every few seconds."""

    def __init__(self, files: CaptionFiles, say: Say, stopped: Stopped, clock: Callable[[], float]) -> None:
        self._name = files.source.name
        self._total_bytes = max(1, files.total_bytes)
        self._say = say
        self._stopped = stopped
        self._clock = clock
        self._began = self._said_at = clock()

    def __call__(self, captions: int, bytes_read: int) -> None:
        _give_up_when(self._stopped)
        now = self._clock()
        if now - self._said_at < SAY_SECONDS:
            return
        self._said_at = now
        share = min(1.0, bytes_read / self._total_bytes)
        left = f", {duration((now - self._began) * (1 - share) / share)} left" if share else ""
        self._say(f"indexing {self._name}: {captions:,} captions, {share:.0%}{left}")


def _give_up_when(stopped: Stopped) -> None:
    if stopped():
        raise StopRequestedError("stopped before the captions were indexed")


def _replace(folder: Path, building: Path) -> None:
    """A kill between the two renames leaves no index, which is then made again."""
    old = folder.with_name(f".old-{folder.name}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    building.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _changed(files: CaptionFiles) -> UserError:
    return UserError(
        "captions changed while they were read",
        expected="files that nobody writes to",
        got="another size or time of change",
        where=str(files.source),
        mend="start again once they are whole",
    )
