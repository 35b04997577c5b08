"""Turns SIGINT, SIGTERM and a closed stdin into one event, from the first moment of a command on."""

import os
import signal
import threading
import time
from types import FrameType

STOPPED_BY_INTERRUPT = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

ORPHAN_GRACE_SECONDS = 8.0


class Interrupts:
    """`stop` is set by the first signal; later ones change nothing, so a second Ctrl-C has no traceback."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.by_interrupt = False

    def install(self) -> None:
        """Takes over both signals. To be called before anything that imports for long."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 0: SIGTERM is an orderly end."""
        return STOPPED_BY_INTERRUPT if self.by_interrupt else 0

    def end_with_stdin(self) -> None:
        """Stops when stdin ends: the launcher that holds its other end has gone, even by SIGKILL."""
        threading.Thread(target=self._watch_stdin, name="end-with-stdin", daemon=True).start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.by_interrupt = self.by_interrupt or number == signal.SIGINT
        self.stop.set()

    def _watch_stdin(self) -> None:
        # os.read, since a daemon thread inside sys.stdin would hold its lock while the interpreter ends.
        while os.read(0, 4096):
            pass
        self.stop.set()
        time.sleep(ORPHAN_GRACE_SECONDS)
        # Nobody is left who could kill a process that does not stop. What it writes, it writes by rename.
        os._exit(1)
