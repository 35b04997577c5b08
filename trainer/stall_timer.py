"""How long the trainer has stood still, for which reason, and when that is worth saying again."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from trainer.stall import Stall

FIRST_SAID_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 10.0
PAUSE_SECONDS_MAX = 300.0
CHANGED_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Told:
    """What people last heard of this stall, and how long they are left alone."""

    reason: Stall | None = None
    at: float = 0.0
    """Seconds since it began."""
    pause: float = FIRST_SAID_SECONDS


class StallTimer:
    """One stall after another: `blocked` again and again while it lasts, then `over`.

    Each moment counts for the reason that was seen at its beginning, so that the seconds of all reasons add
    up to the time stood still. A stall is said after 5 s, then after 10 s more, 20, 40 and so on, at most
    300; a new reason is said as soon as 5 s have passed since the last line.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        """By reason, over all stalls so far."""
        self._reason: Stall | None = None
        self._began = self._seen = 0.0
        self._told = _Told()

    def blocked(self, reason: Stall) -> bool:
        """The trainer stands still for that reason. True when people should be told now."""
        now = self._clock()
        if self._reason is None:
            self._began = now
        self._count(now)
        self._reason = reason
        lasted, told = now - self._began, self._told
        due = told.at + told.pause
        if told.reason not in (None, reason):
            due = min(due, told.at + CHANGED_PAUSE_SECONDS)
        if lasted < due:
            return False
        pause = FIRST_PAUSE_SECONDS if told.reason is None else min(2 * told.pause, PAUSE_SECONDS_MAX)
        self._told = _Told(reason=reason, at=lasted, pause=pause)
        return True

    def over(self) -> bool:
        """The trainer goes on. True when people had been told that it stood still."""
        self._count(self._clock())
        told = self._told.reason is not None
        self._reason = None
        self._told = _Told()
        return told

    @property
    def lasted(self) -> float:
        """Seconds since this stall began; 0 when there is none."""
        return 0.0 if self._reason is None else self._clock() - self._began

    def _count(self, now: float) -> None:
        if self._reason is not None:
            self.seconds[self._reason.value] += now - self._seen
        self._seen = now
