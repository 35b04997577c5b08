"""Built engines on disk: one folder an engine, named by the digest of all that it depends on.

    runs/.engines/KEY/engine.json      the recipe, seconds of the build, a digest of each file
    runs/.engines/KEY/*.pt2            what the engine loads

A folder is built aside and renamed when whole, under a lock of its key: of several workers that start at once
one builds, and the others wait for it. Engines are machine code, so the cache must be the user's own.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import xxhash
from msgspec import Struct, convert

from generator_service.engine import Abandoned
from generator_service.errors import DrawAbandonedError
from protocol.errors import UserError
from protocol.identity import digest_of

RECORD = "engine.json"
_NAP_SECONDS = 0.2
_CHUNK_BYTES = 1 << 24


class BuiltEngine(Struct, frozen=True, kw_only=True):
    """What `engine.json` says."""

    recipe: dict[str, Any]
    build_seconds: float
    files: dict[str, str]
    """xxh3-128 of each file by its name."""

    @property
    def digest(self) -> str:
        """Names the bytes: two engines with it draw the same ticket alike on the same device."""
        return digest_of(self.files)


class EngineCache:
    """Safe for any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, recipe: dict[str, Any]) -> Path | None:
        """The folder of a whole engine, if there is one."""
        folder = self.root / digest_of(recipe)
        return folder if (folder / RECORD).is_file() else None

    def make(
        self, recipe: dict[str, Any], build: Callable[[Path], None], abandoned: Abandoned
    ) -> tuple[Path, BuiltEngine]:
        """The engine of a recipe, built by `build` into the folder it is given unless it is there.

        Raises UserError for a cache that cannot be used, DrawAbandonedError while another process builds.
        """
        self._own()
        key = digest_of(recipe)
        with self._locked(key, abandoned):
            folder = self.find(recipe)
            if folder is None:
                folder = self._build(key, recipe, build)
        return folder, read_engine(folder)

    def engines(self) -> list[tuple[Path, BuiltEngine]]:
        """Every whole engine, by its folder's name."""
        folders = sorted(path.parent for path in self.root.glob(f"*/{RECORD}"))
        return [(folder, read_record(folder)) for folder in folders if not folder.name.startswith(".")]

    def clean(self, keys: list[str] | None = None) -> int:
        """Removes the engines of these keys, or all; returns how many."""
        removed = 0
        for folder, _ in self.engines():
            if keys is None or folder.name in keys:
                with self._locked(folder.name, lambda: False):
                    shutil.rmtree(folder)
                removed += 1
        return removed

    def _build(self, key: str, recipe: dict[str, Any], build: Callable[[Path], None]) -> Path:
        for left in self.root.glob(f".{key}.*.part"):  # of a build that was killed: this process has the lock
            shutil.rmtree(left)
        aside = self.root / f".{key}.{os.getpid()}.part"
        aside.mkdir(mode=0o700)
        try:
            began = time.monotonic()
            build(aside)
            files = {file.name: _digest(file) for file in sorted(aside.iterdir())}
            record = {"recipe": recipe, "build_seconds": time.monotonic() - began, "files": files}
            (aside / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            aside.rename(self.root / key)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # gone by its new name after a success
        return self.root / key

    def _own(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.root.stat()
        except OSError as error:
            raise _refusal(self.root, "a folder that can be written", str(error.strerror)) from error
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise _refusal(self.root, "a folder of this user that nobody else writes to", "another")

    @contextmanager
    def _locked(self, key: str, abandoned: Abandoned) -> Iterator[None]:
        with (self.root / f".{key}.lock").open("w") as lock:
            _acquire(lock, abandoned)
            yield


def read_engine(folder: Path) -> BuiltEngine:
    """The record, once every file was found to be as built. Raises UserError."""
    record = read_record(folder)
    for name, digest in record.files.items():
        file = folder / name
        if not file.is_file() or _digest(file) != digest:
            raise UserError(
                "the engine is damaged",
                expected=f"{name} as it was built",
                got="other bytes" if file.is_file() else "none",
                where=str(folder),
                mend="remove it with `streamrep engine clean`, and it is built again",
            )
    return record


def read_record(folder: Path) -> BuiltEngine:
    """`engine.json` as it stands. Raises UserError."""
    try:
        return convert(json.loads((folder / RECORD).read_text("utf-8")), BuiltEngine)
    except (OSError, ValueError) as error:
        raise UserError(
            "the engine's record is unreadable",
            expected=RECORD,
            got=str(error),
            where=str(folder),
            mend="remove the folder",
        ) from error


def _acquire(lock: IO[str], abandoned: Abandoned) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if abandoned():
                raise DrawAbandonedError("while another process built the engine") from None
            time.sleep(_NAP_SECONDS)


def _digest(file: Path) -> str:
    digest = xxhash.xxh3_128()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _refusal(root: Path, expected: str, got: str) -> UserError:
    return UserError(
        "the engine cache cannot be used",
        expected=expected,
        got=got,
        where=str(root),
        mend="choose another with --generator.engine_cache",
    )
