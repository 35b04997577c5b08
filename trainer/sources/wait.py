"""The wait for groups, the same for every source of a live stream: stop, watch, and the time it took."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from protocol.errors import StreamrepError
from trainer.batch import DrawnGroup
from trainer.errors import StopRequestedError
from trainer.lockstep import Lockstep
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
    """Waits for a feed until its source can form a batch, and with several ranks until all of them can."""

    def __init__(
        self, feed: GroupFeed, stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None = None
    ) -> None:
        self._feed = feed
        self._stop = stop
        self._watch = watch
        self._lockstep = lockstep
        self.seconds = 0.0
        """Time in which the trainer stood still for want of groups, in all."""

    def until(self, lacks: Callable[[], Want | None], step: int = 0) -> None:
        """Returns when `lacks`, asked again after every arrival, says that nothing is, on every rank.

        `step` is the one that waits.
        Raises StopRequestedError when asked to stop meanwhile, PeerFailedError when another rank can't go on,
        and whatever `lacks` raises.
        """
        began: float | None = None
        goes_on = False
        try:
            while True:
                want = lacks() if self._lockstep is None else self._or_fail(lacks, self._lockstep)
                if self._lockstep is None:
                    blocked = self._alone(want)
                else:
                    blocked = self._together(step, want, self._lockstep)
                if blocked is None:
                    break
                began = began or time.monotonic()
                if self._watch:
                    self._watch.waiting(blocked)
                if want is not None:  # a rank that lacks nothing waits for the others where they meet
                    self._feed.wait(WAIT_SECONDS)
            goes_on = True
        finally:
            if began is not None:
                self.seconds += time.monotonic() - began
            if self._watch:
                self._watch.over(goes_on=goes_on)

    def _alone(self, want: Want | None) -> Want | None:
        if want is not None and self._stop.is_set():
            raise StopRequestedError("asked to stop while waiting for groups")
        return want

    def _or_fail(self, lacks: Callable[[], Want | None], lockstep: Lockstep) -> Want | None:
        try:
            return lacks()
        except StreamrepError as error:  # not swallowed: the other ranks are told, and it is raised
            lockstep.fail(error)

    def _together(self, step: int, want: Want | None, lockstep: Lockstep) -> Want | None:
        others = lockstep.meet(want)
        if want is not None or not others:
            return want
        return Want(step=step, needed=0, fresh=0, others=others)
