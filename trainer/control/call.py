"""Asks a running trainer through the socket in its run's folder."""

import socket
from pathlib import Path

import msgspec

from protocol.errors import UserError
from trainer.control.control import ANSWER_SECONDS
from trainer.control.door import read_line, short_path
from trainer.control.messages import SOCKET, Reply, Request

PATIENCE_SECONDS = 3 * ANSWER_SECONDS
REPLY_BYTES_MAX = 2**16


def call(folder: Path, request: Request) -> Reply:
    """The trainer's reply. Raises UserError where no trainer answers, or this user may not ask it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream, short_path(folder) as path:
            stream.settimeout(PATIENCE_SECONDS)
            stream.connect(path)
            stream.sendall(msgspec.json.encode(request) + b"\n")
            return msgspec.json.decode(read_line(stream, REPLY_BYTES_MAX), type=Reply)
    except (FileNotFoundError, ConnectionError) as error:
        mend = "start it with `streamrep train` or `up`; of several ranks ask where the first one runs"
        raise _nobody(folder, "nobody at its socket", mend) from error
    except TimeoutError as error:
        raise _nobody(folder, "no reply", "look at the trainer's output; it may hang") from error
    except PermissionError as error:
        raise _nobody(
            folder, "a socket of another user", "ask as the user who started the trainer"
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise _nobody(folder, f"no reply that this version knows: {error}", "ask with its version") from error


def _nobody(folder: Path, got: str, mend: str) -> UserError:
    return UserError(
        "trainer does not answer",
        expected="a running trainer of this run",
        got=got,
        where=str(folder / SOCKET),
        mend=mend,
    )
