"""The wait for groups, the same for every source of a live stream: stop, watch, and the time it took."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from trainer.batch import DrawnGroup
from trainer.errors import StopRequestedError
from trainer.stall import Want

WAIT_SECONDS = 0.2


class GroupFeed(Protocol):
    """What a source needs of a feed."""

    def take(self, count: int) -> list[DrawnGroup]:
        """At most that many arrived groups."""

    def wait(self, seconds: float) -> None:
        """Until something arrives, at most that long."""

    def trained(self, group_ids: list[int]) -> None:
        """Frees the slots of groups trained for the first time."""

    def dead_letters(self) -> dict[int, str]:
        """Groups that can't be drawn, with their reasons."""


class Watch(Protocol):
    """Who is told that the trainer stands still."""

    def waiting(self, want: Want) -> None:
        """Called several times a second while no batch can be formed."""

    def over(self, *, goes_on: bool = True) -> None:
        """It goes on, or was asked to stop."""


class Wait:
    """Waits for a feed until its source can form a batch."""

    def __init__(self, feed: GroupFeed, stop: threading.Event, watch: Watch | None) -> None:
        self._feed = feed
        self._stop = stop
        self._watch = watch
        self.seconds = 0.0
        """Time in which the trainer stood still for want of groups, in all."""

    def until(self, lacks: Callable[[], Want | None]) -> None:
        """Returns when `lacks`, asked again after every arrival, says that nothing is.

        Raises StopRequestedError when asked to stop meanwhile, and whatever `lacks` raises.
        """
        started = time.monotonic()
        goes_on = False
        try:
            while (want := lacks()) is not None:
                if self._stop.is_set():
                    raise StopRequestedError("asked to stop while waiting for groups")
                if self._watch:
                    self._watch.waiting(want)
                self._feed.wait(WAIT_SECONDS)
            goes_on = True
        finally:
            self.seconds += time.monotonic() - started
            if self._watch:
                self._watch.over(goes_on=goes_on)
