"""Says which side is blocked while the trainer stands still: on stderr, in the progress line, in the metrics.

source ─Want→ ┐
feed ─status→ ├ diagnose (stall.py) → StallTimer ─now and then→ a line, a row of metrics
checkpoint ─→ ┘
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from trainer.feed.feed import FeedStatus
from trainer.stall import Stall, Want, diagnose, explain
from trainer.stall_timer import StallTimer

CHECKPOINT_LOOK_SECONDS = 1.0


class Shows(Protocol):
    """What this needs of the progress line."""

    def say(self, text: str) -> None:
        """Prints a full line."""

    def stall(self, text: str, step: int) -> None:
        """Shows why the run stands still after that step, or that it does not, when empty."""


@dataclass(frozen=True, kw_only=True)
class Standstill:
    """What the trainer stood still for when it was last looked at, several times a second while it does."""

    want: Want
    reason: Stall | None = None
    """None while it does not."""
    lasted: float = 0.0
    """Seconds since this stall began."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By reason, over all stalls of this process."""


class StallWatch:
    """Called by the source as it waits, and by the loop around a checkpoint."""

    def __init__(
        self,
        status: Callable[[], FeedStatus],
        endpoint: Callable[[], str],
        progress: Shows,
        write: Callable[[dict[str, Any]], None],
        *,
        timer: StallTimer | None = None,
    ) -> None:
        """`write` takes a row of metrics.jsonl."""
        self._status = status
        self._endpoint = endpoint
        self._progress = progress
        self._write = write
        self._timer = timer or StallTimer()
        self._last_want = Want(step=1, needed=0, fresh=0)
        self.standstill = Standstill(want=self._last_want)
        """For any thread: replaced as a whole, never changed."""

    @property
    def seconds(self) -> dict[str, float]:
        """Stood still since the start of this process, by reason."""
        return dict(self._timer.seconds)

    def waiting(self, want: Want) -> None:
        """The source can't form a batch; to be called several times a second while that is so."""
        status = self._status()
        self._last_want = want
        self._look(diagnose(want, status), status)

    def over(self, *, goes_on: bool = True) -> None:
        """What the trainer stood still for has come, or it was asked to stop."""
        lasted = self._timer.lasted
        told = self._timer.over() or self.standstill.reason is Stall.PAUSED
        self.standstill = Standstill(want=self._last_want, seconds=self.seconds)
        if told:
            self._progress.stall("", self._last_want.step - 1)
            if goes_on:
                self._progress.say(f"goes on after {lasted:.0f} s")

    def paused(self, step: int) -> None:
        """Somebody has paused the run after that step; to be called several times a second until `over`.
        Told once: nobody has to be reminded of what they asked for."""
        begins = self.standstill.reason is not Stall.PAUSED
        self._last_want = Want(step=step + 1, needed=0, fresh=0)
        self._timer.blocked(Stall.PAUSED)
        self.standstill = Standstill(
            want=self._last_want, reason=Stall.PAUSED, lasted=self._timer.lasted, seconds=self.seconds
        )
        if begins:
            self._progress.stall("paused", step)
            self._progress.say(f"paused after step {step}; `streamrep ctl RUN resume` lets it go on")
            self._write_row(Stall.PAUSED, self._status())

    @contextmanager
    def writing_checkpoint(self, step: int) -> Iterator[None]:
        """While the caller writes the checkpoint of that step, a thread looks at the clock in its place."""
        self._last_want = Want(step=step + 1, needed=0, fresh=0)
        written = threading.Event()
        looker = threading.Thread(
            target=self._look_until, args=(written,), name="checkpoint-clock", daemon=True
        )
        self._look(Stall.CHECKPOINT, self._status())
        looker.start()
        try:
            yield
        finally:
            written.set()
            looker.join()  # from here on the caller's thread is alone with metrics and progress again
            self.over()

    def _look_until(self, written: threading.Event) -> None:
        while not written.wait(CHECKPOINT_LOOK_SECONDS):
            self._look(Stall.CHECKPOINT, self._status())

    def _look(self, stall: Stall, status: FeedStatus) -> None:
        due = self._timer.blocked(stall)
        want, seconds = self._last_want, self._timer.lasted
        self.standstill = Standstill(want=want, reason=stall, lasted=seconds, seconds=self.seconds)
        if not due:
            return
        because = explain(stall, want, status, self._endpoint())
        self._progress.stall(f"stands still: {stall.value.replace('_', ' ')}", want.step - 1)
        self._progress.say(f"step {want.step} has waited {seconds:.0f} s ({stall.value}): {because}")
        self._write_row(stall, status)

    def _write_row(self, stall: Stall, status: FeedStatus) -> None:
        want = self._last_want
        self._write(
            {
                "step": want.step - 1,
                "time": time.time(),
                "stall": stall.value,
                "stall_seconds": self._timer.lasted,
                "stalls": self.seconds,
                "workers": status.workers,
                "connected_workers": status.connected,
                "heard_seconds_ago": status.heard_seconds_ago,
                "leased_groups": status.leased,
                "oldest_lease_seconds": status.oldest_lease_seconds,
                "fresh_groups": want.fresh,
                "needed_groups": want.needed,
                "refused": status.refused,
            }
        )
