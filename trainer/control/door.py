"""A Unix socket in the run's folder, which only its owner can open: one request a connection, one reply.

The thread answers one caller after the other; a caller that says nothing is let go after some seconds.
"""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from protocol.errors import UserError
from trainer.control.messages import LINE_BYTES_MAX, SOCKET, Reply, Request

LOOK_SECONDS = 0.2
CALLER_SECONDS = 5.0
OWNER_ONLY = 0o600


class Door:
    """Open from its making until `close`. The run's folder must be locked by this process."""

    def __init__(self, folder: Path, answer: Callable[[Request], Reply]) -> None:
        """Raises UserError where the folder can't hold a socket."""
        self._path = folder / SOCKET
        self._answer = answer
        self._closing = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path.unlink(missing_ok=True)  # left by a trainer that was killed
            if sys.platform == "linux":  # which makes the file with this mode: it is never open to others
                os.fchmod(self._socket.fileno(), OWNER_ONLY)
            with short_path(folder) as path:
                self._socket.bind(path)
            self._path.chmod(OWNER_ONLY)
        except OSError as error:
            self._socket.close()
            raise UserError(
                "cannot be controlled",
                expected="a folder that can hold a Unix socket",
                got=error.strerror or str(error),
                where=str(self._path),
                mend="choose a folder on a local disk with --run.dir",
            ) from error
        self._socket.listen()
        self._socket.settimeout(LOOK_SECONDS)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody is answered from now on."""
        self._closing.set()
        self._thread.join(timeout=LOOK_SECONDS * 10)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                caller, _ = self._socket.accept()
            except TimeoutError:
                continue
            # Who hangs up, or says nothing, harms nobody else.
            with caller, contextlib.suppress(OSError):
                caller.settimeout(CALLER_SECONDS)
                caller.sendall(msgspec.json.encode(self._hear(caller)) + b"\n")

    def _hear(self, caller: socket.socket) -> Reply:
        try:
            request = msgspec.json.decode(read_line(caller, LINE_BYTES_MAX), type=Request)
        except (msgspec.DecodeError, ValueError) as error:
            return Reply(ok=False, text=f"no request: {error}")
        return self._answer(request)


def read_line(stream: socket.socket, bytes_max: int) -> bytes:
    """What comes until a line feed or the end. Raises ValueError beyond `bytes_max`, OSError."""
    line = b""
    while not line.endswith(b"\n") and (part := stream.recv(4096)):
        line += part
        if len(line) > bytes_max:
            raise ValueError(f"expected at most {bytes_max} bytes, got more")
    return line


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """A path of the socket that fits: a socket's may have 107 bytes, which run folders exceed."""
    if not os.path.isdir("/proc/self/fd"):
        yield str(folder / SOCKET)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
