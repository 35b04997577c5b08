"""A build that is told of while it goes on: what it is at, and for how long."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

EVERY_SECONDS = 10.0


class BuildProgress:
    """Speaks from a thread of its own, since a builder returns only when it has finished."""

    def __init__(
        self, say: Callable[[str], None], what: str, *, every_seconds: float = EVERY_SECONDS
    ) -> None:
        self._say, self._what, self._every_seconds = say, what, every_seconds
        self._step = ""
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="build-progress", daemon=True)

    def at(self, step: str) -> None:
        """What the build is at from now on; for any thread."""
        self._step = step

    def __enter__(self) -> "BuildProgress":
        self._began = time.monotonic()
        self._say(f"{self._what}: building")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join()
        if error is None:
            self._say(f"{self._what}: built in {time.monotonic() - self._began:.0f} s")

    def _speak(self) -> None:
        while not self._finished.wait(self._every_seconds):
            step = f", {self._step}" if self._step else ""
            self._say(f"{self._what}: {time.monotonic() - self._began:.0f} s{step}")
