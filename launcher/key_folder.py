"""The files behind `streamrep keys`: written whole, never over an existing key, secrets for one user only."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import zmq

from launcher.errors import KeysError
from protocol.keys import (
    ADMITTED,
    TRAINER_PUBLIC,
    TRAINER_SECRET,
    WORKER_PUBLIC,
    WORKER_SECRET,
    need_curve,
    public_of,
    read_public,
    read_secret,
)
from trainer.feed.allow_list import SUFFIX, read_admitted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WORKERS = "workers"
SECRET_MODE = 0o600
PUBLIC_MODE = 0o644

Result = TypeVar("Result")


class KeyFolder:
    """One folder of keys, as protocol.keys describes it. Every method raises UserError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, worker: str) -> bool:
        """Whether that worker's pair was made here, admitted or revoked; without a name, the trainer's."""
        if worker:
            return (self.path / WORKERS / worker).exists()
        return (self.path / TRAINER_PUBLIC).exists() and (self.path / TRAINER_SECRET).exists()

    def make_trainer(self) -> Path:
        """A pair for the trainer; returns the public key's file, which comes back if it alone was lost."""
        need_curve("streamrep keys")
        secret, public = self.path / TRAINER_SECRET, self.path / TRAINER_PUBLIC
        if public.exists():
            raise _exists(public)
        lost = secret.exists()
        key, new_secret = (public_of(read_secret(secret, "remove it")), "") if lost else _new_pair()
        _reported(self.path, lambda: (self.path / ADMITTED).mkdir(parents=True, exist_ok=True))
        if not lost:
            _write_new(secret, new_secret, SECRET_MODE)
        _write_new(public, key, PUBLIC_MODE)
        return public

    def make_worker(self, name: str) -> Path:
        """A folder with all that a worker needs, admitted under that name; returns the folder."""
        need_curve("streamrep keys")
        _check_name(name)
        trainer = read_public(self.path / TRAINER_PUBLIC, "make it first with `streamrep keys trainer`")
        folder = self.path / WORKERS / name
        for taken in (folder, self._admitted_file(name)):
            if taken.exists():
                raise _exists(taken)
        public, secret = _new_pair()
        # Under another name first: a folder with half of its files must not look like a whole one.
        temporary = folder.with_name(f".{name}.{os.getpid()}")
        _reported(temporary, lambda: temporary.mkdir(parents=True))
        try:
            _write_new(temporary / WORKER_SECRET, secret, SECRET_MODE)
            _write_new(temporary / WORKER_PUBLIC, public, PUBLIC_MODE)
            _write_new(temporary / TRAINER_PUBLIC, trainer, PUBLIC_MODE)
            _reported(folder, lambda: temporary.rename(folder))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._write_admitted(name, public)
        return folder

    def admit(self, name: str, public_file: Path) -> str:
        """Admits a key that was made elsewhere, or revoked; returns the key."""
        _check_name(name)
        if public_file.suffix == ".secret":  # it would be copied to where everybody can read it
            raise KeysError(
                "a secret key",
                expected="a public key",
                got=public_file.name,
                where=str(public_file),
                mend=f"give the {WORKER_PUBLIC} beside it",
            )
        key = read_public(public_file, f"give a {WORKER_PUBLIC}")
        for other, known in self.admitted().items():
            if known == key and other != name:
                raise KeysError(
                    "key is admitted already",
                    expected="a key of this worker's own, so that one can be revoked without the other",
                    got=f"the key of {other}",
                    where=str(public_file),
                    mend=f"make another with `streamrep keys worker {name}`",
                )
        self._write_admitted(name, key)
        return key

    def admitted(self) -> dict[str, str]:
        """Public key by name."""
        return read_admitted(self.path / ADMITTED)

    def revoke(self, name: str) -> None:
        """A running trainer shuts this worker out within a second."""
        path = self._admitted_file(name)
        if not path.exists():
            raise KeysError(
                "no such worker",
                expected="one of " + (", ".join(self.admitted()) or "nobody: none is admitted"),
                got=name,
                where=str(self.path / ADMITTED),
                mend="`streamrep keys list` shows who is admitted",
            )
        _reported(path, path.unlink)

    def _admitted_file(self, name: str) -> Path:
        return self.path / ADMITTED / f"{name}{SUFFIX}"

    def _write_admitted(self, name: str, key: str) -> None:
        path = self._admitted_file(name)
        _reported(path.parent, lambda: path.parent.mkdir(parents=True, exist_ok=True))
        _write_new(path, key, PUBLIC_MODE)


def _new_pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def _write_new(path: Path, key: str, mode: int) -> None:
    """Through a temporary file and a hard link, which unlike a rename fails where the name is taken."""

    def write() -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        # Opened for its owner only, whatever the umask says; a public key is opened up when it is whole.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(key + "\n")
                file.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            os.link(temporary, path)
        finally:
            temporary.unlink()

    _reported(path, write)


def _reported(path: Path, act: Callable[[], Result]) -> Result:
    try:
        return act()
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise KeysError(
            "cannot write",
            expected="a folder of keys that can be written",
            got=error.strerror or type(error).__name__,
            where=str(path),
            mend="choose another with --keys",
        ) from error


def _exists(path: Path) -> KeysError:
    return KeysError(
        "key exists",
        expected="a name that is not taken, since no key is overwritten",
        got="one that is",
        where=str(path),
        mend="choose another name, or remove it first",
    )


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise KeysError(
            "bad name",
            expected="at most 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
            got=name,
            where="streamrep keys",
            mend="choose another name",
        )
