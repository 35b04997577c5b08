"""CURVE keys as files: one folder on each machine, one key a file, 40 Z85 characters and a newline.

trainer's machine                          worker's machine
  trainer.secret   read by the trainer       worker.secret   read by the worker
  trainer.public   copied to workers         trainer.public  whom the worker trusts
  admitted/NAME.public   who may connect     worker.public   copied to admitted/

The public half of a pair is computed from the secret one, so that the two can't disagree.
"""

import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from protocol.errors import UserError

TRAINER_SECRET = "trainer.secret"
TRAINER_PUBLIC = "trainer.public"
WORKER_SECRET = "worker.secret"
WORKER_PUBLIC = "worker.public"
ADMITTED = "admitted"
KEY_LENGTH = 40
"""Characters of a key in Z85: 32 bytes."""


@dataclass(frozen=True, kw_only=True)
class TrainerKeys:
    """What the trainer's socket needs."""

    secret: str = field(repr=False)
    admitted: Path
    """Folder of the admitted workers' public keys, read again while the run goes on."""


@dataclass(frozen=True, kw_only=True)
class WorkerKeys:
    """What a worker's socket needs."""

    secret: str = field(repr=False)
    public: str
    trainer: str
    """Public key of the only trainer that the worker talks to."""


def read_trainer_keys(folder: str) -> TrainerKeys | None:
    """`stream.keys`; None where it is empty. Raises UserError for a key that is missing, open or no key."""
    if not folder:
        return None
    need_curve("stream.keys")
    mend = f"make it with `streamrep keys trainer --keys {folder}`"
    return TrainerKeys(
        secret=read_secret(Path(folder, TRAINER_SECRET), mend), admitted=Path(folder, ADMITTED)
    )


def read_worker_keys(folder: str) -> WorkerKeys | None:
    """`generator.keys`; None where it is empty. Raises UserError as `read_trainer_keys` does."""
    if not folder:
        return None
    need_curve("generator.keys")
    mend = (
        "make it with `streamrep keys worker NAME` on the trainer's machine and copy keys/workers/NAME here"
    )
    secret = read_secret(Path(folder, WORKER_SECRET), mend)
    trainer = read_public(Path(folder, TRAINER_PUBLIC), mend)
    return WorkerKeys(secret=secret, public=public_of(secret), trainer=trainer)


def need_curve(where: str) -> None:
    """Raises UserError where libzmq was built without CURVE."""
    if not zmq.has("curve"):
        raise UserError(
            "no encryption here",
            expected="a libzmq with CURVE",
            got=f"libzmq {zmq.zmq_version()} without it",
            where=where,
            mend="install pyzmq from its wheel (pip install --force-reinstall --only-binary pyzmq pyzmq)",
        )


def public_of(secret: str) -> str:
    """The public key that belongs to a secret one, both in Z85."""
    return zmq.curve_public(secret.encode()).decode()


def read_secret(path: Path, mend: str) -> str:
    """A secret key. Raises UserError, also where anyone but its owner can read or write the file."""
    text, mode = _read(path, mend)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(
            "secret key is open to others",
            expected="a file of mode 600",
            got=f"mode {stat.S_IMODE(mode):o}",
            where=str(path),
            mend=f"chmod 600 {path}, or make a new pair if somebody may have read it",
        )
    return _checked(text, path, mend)


def read_public(path: Path, mend: str) -> str:
    """A public key, in Z85. Raises UserError."""
    text, _ = _read(path, mend)
    return _checked(text, path, mend)


def is_key(text: str) -> bool:
    """Whether the text is 32 bytes in Z85."""
    if len(text) != KEY_LENGTH:
        return False
    try:
        z85.decode(text)
    except (ValueError, KeyError, struct.error):  # not ASCII; not of the alphabet; a group above 2^32
        return False
    return True


def _read(path: Path, mend: str) -> tuple[str, int]:
    """Text and mode of one and the same file, should somebody swap it in between."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(4096).strip(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise UserError(
            "cannot read the key",
            expected="a key file",
            got=error.strerror or type(error).__name__,
            where=str(path),
            mend=mend,
        ) from error


def _checked(text: str, path: Path, mend: str) -> str:
    if not is_key(text):
        # What was found is not told: it may be a secret with a typing error.
        raise UserError(
            "not a key",
            expected=f"{KEY_LENGTH} characters of Z85",
            got=f"{len(text)} characters" + (" outside Z85" if len(text) == KEY_LENGTH else ""),
            where=str(path),
            mend=mend,
        )
    return text
