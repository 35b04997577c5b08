"""What to do when a process of a local run ends: the policy of `streamrep up`, without processes or clocks.

    running ──trainers 0─→ draining ──every generator gone──→ over
       │                      └─ after 10 s: SIGTERM, 8 s later SIGKILL
       └──stop, or a failure──→ stopping: SIGTERM to all at once, 8 s later SIGKILL ──→ over

A generator that crashes is started again, at most 3 times in a run, after 1, 2 and 4 seconds. One that ends
with 2 (bad input) ends the run, since starting it again would change nothing. One that ends with 0 was told
to stop by the trainer. Several ranks are several trainers: the run goes on until all have ended well.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

TRAINER = "trainer"
"""The first rank; `trainer-1` and so on are the others."""
DRAIN_SECONDS = 10.0
TERM_SECONDS = 8.0
RESTARTS_MAX = 3
USER_ERROR = 2

Phase = Literal["running", "draining", "stopping", "over"]


class Start(Struct, frozen=True):
    """Start process `name` (again)."""

    name: str


class Terminate(Struct, frozen=True):
    """Send `name` SIGTERM."""

    name: str


class Kill(Struct, frozen=True):
    """Send `name` and all it started SIGKILL."""

    name: str


class Say(Struct, frozen=True):
    """Tell the person at the terminal."""

    text: str


class ReportFailure(Struct, frozen=True):
    """Tell the person that `name` ended the run with `code`; its last line of output is the reason."""

    name: str
    code: int


Action = Start | Terminate | Kill | Say | ReportFailure


class Supervisor:
    """Pure state machine; every method returns what is to be done, and takes the time in seconds."""

    def __init__(self, generators: list[str], trainers: Sequence[str] = (TRAINER,)) -> None:
        self.phase: Phase = "running"
        self.exit_code = 0
        self._trainers = frozenset(trainers)
        self._training = set(trainers)
        self._alive = {*trainers, *generators}
        self._restarts = 0
        self._start_at: dict[str, float] = {}
        self._terminate_at: float | None = None
        self._kill_at: float | None = None

    def on_exit(self, name: str, code: int, now: float) -> list[Action]:
        """Process `name` ended with `code` (negative: by that signal)."""
        self._alive.discard(name)
        actions: list[Action] = []
        is_trainer = name in self._trainers
        if self.phase == "running":
            ended = self._trainer_ended if is_trainer else self._generator_ended
            actions = ended(name, code, now)
        elif is_trainer and code > 0 and self.exit_code == 0:
            # It was to end, and failed while ending: its checkpoint may be missing.
            self.exit_code = code
            actions = [ReportFailure(name, code)]
        if not self._alive and not self._start_at:
            self.phase = "over"
        return actions

    def on_stop(self, now: float) -> list[Action]:
        """Somebody asked the run to end."""
        return [] if self.phase in ("stopping", "over") else self._stop(now)

    def tick(self, now: float) -> list[Action]:
        """What has fallen due."""
        actions: list[Action] = []
        for name in [name for name, at in self._start_at.items() if at <= now]:
            del self._start_at[name]
            self._alive.add(name)
            actions.append(Start(name))
        if self._terminate_at is not None and now >= self._terminate_at:
            actions += self._terminate(now)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            for name in sorted(self._alive):
                actions += [Say(f"{name} did not end in {TERM_SECONDS:g} s and is killed"), Kill(name)]
        return actions

    def _trainer_ended(self, name: str, code: int, now: float) -> list[Action]:
        if code == 0:
            self._training.discard(name)
            if self._training:
                return []
            self.phase = "draining"
            self._start_at.clear()
            self._terminate_at = now + DRAIN_SECONDS
            return []
        return [ReportFailure(name, code), *self._stop(now, code)]

    def _generator_ended(self, name: str, code: int, now: float) -> list[Action]:
        if code == 0:
            return []
        if code == USER_ERROR or self._restarts == RESTARTS_MAX:
            return [ReportFailure(name, code), *self._stop(now, USER_ERROR if code == USER_ERROR else 1)]
        wait_seconds = 2.0**self._restarts
        self._restarts += 1
        self._start_at[name] = now + wait_seconds
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return [
            Say(
                f"{name} ended {how}; starting it again in {wait_seconds:g} s "
                f"(restart {self._restarts} of {RESTARTS_MAX})"
            )
        ]

    def _stop(self, now: float, code: int = 0) -> list[Action]:
        self.phase = "stopping"
        self.exit_code = 128 - code if code < 0 else code
        self._start_at.clear()
        if not self._alive:
            self.phase = "over"
        return self._terminate(now)

    def _terminate(self, now: float) -> list[Action]:
        self._terminate_at = None
        self._kill_at = now + TERM_SECONDS
        return [Terminate(name) for name in sorted(self._alive)]
