"""What a worker has to draw, is drawing, and has drawn: shared by its two threads behind one lock.

 I/O thread ─add, want, cancel→ waiting ─take→ under way ─finish→ drawn ─collect→ I/O thread
                                       compute thread

The compute thread takes for itself, so that a full batch that waits costs it no turn of the I/O thread.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from generator_service.channel import Outcome
from generator_service.conversation import Vitals
from generator_service.pace import Pace
from generator_service.packer import Assignment, Packer
from protocol.tickets import Ticket


class Assignments:
    """Every ticket of this worker is in exactly one place, whenever either thread looks."""

    def __init__(self, *, pack_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`pack_seconds`: how long a batch that is not full waits for more."""
        self._clock = clock
        self._changed = threading.Condition()
        self._packer = Packer(groups_per_batch=1, pack_seconds=pack_seconds)
        self._pace = Pace(0.0)
        self._under_way: deque[list[Assignment]] = deque()
        """The batches that the engine has begun, in that order."""
        self._drawn: list[Outcome] = []
        self._asleep = False
        """The I/O thread waits, and does not look here by itself."""
        self._closed = False

    # called by the compute thread

    def equip(self, *, groups_per_batch: int, batch_seconds: float) -> None:
        """The engine's batch; it may be replaced by a smaller one while a batch is under way."""
        with self._changed:
            self._packer.resize(groups_per_batch)
            self._pace.begin_anew(batch_seconds, self._clock())

    def take(self, timeout_seconds: float, *, full: bool = False) -> list[Assignment] | None:
        """The next static batch, now under way. Empty when none came in time; None is the end.

        With `full` no part-filled one: while the device is busy it costs nothing to wait for the rest.
        """
        give_up_at = self._clock() + timeout_seconds
        with self._changed:
            while not self._closed:
                now = self._clock()
                if batch := self._packer.take(now, full=full):
                    self._under_way.append(batch)
                    self._pace.start(now)
                    return batch
                if now >= give_up_at:
                    return []
                due_at = self._packer.due_at(now, full=full)
                self._changed.wait((give_up_at if due_at is None else min(due_at, give_up_at)) - now)
            return None

    def finish(self, outcomes: Iterable[Outcome]) -> bool:
        """What became of the batch taken first, for the I/O thread to collect; whether it has to be woken."""
        with self._changed:
            asleep, self._asleep = self._asleep, False
            self._pace.finish(self._clock())
            self._under_way.popleft()
            self._drawn += outcomes
            return asleep

    # called by the I/O thread

    def may_sleep(self) -> bool:
        """Whether nothing waits to be collected. The next `finish` then says that the thread sleeps."""
        with self._changed:
            self._asleep = not self._drawn
            return self._asleep

    def collect(self) -> list[Outcome]:
        """What was drawn since the last time."""
        with self._changed:
            self._asleep = False
            drawn, self._drawn = self._drawn, []
            return drawn

    def add(self, rank: int, tickets: Iterable[Ticket], unsent: Iterable[int]) -> None:
        """Queues tickets of a rank, but not those it has here already, `unsent` groups among them."""
        with self._changed:
            held = set(self._begun(rank))
            held |= {outcome.group_id for outcome in self._drawn if outcome.rank == rank}
            held.update(unsent)
            fresh = [ticket for ticket in tickets if ticket.group_id not in held]
            self._packer.add(rank, fresh, self._clock())
            self._changed.notify()

    def want(self, rank: int, groups: int) -> None:
        """Notes how many groups a rank would take at once."""
        with self._changed:
            self._packer.want(rank, groups)

    def cancel(self, rank: int, group_ids: Iterable[int]) -> None:
        """Drops those of the groups that still wait here."""
        with self._changed:
            self._packer.cancel(rank, group_ids)

    def drop_rank(self, rank: int) -> None:
        """Forgets what waits for a rank."""
        with self._changed:
            self._packer.drop_rank(rank)

    def undrawn(self, rank: int) -> tuple[int, ...]:
        """Group ids of a rank that wait, are under way or were not collected."""
        with self._changed:
            return (
                *self._packer.waiting(rank),
                *self._begun(rank),
                *(outcome.group_id for outcome in self._drawn if outcome.rank == rank),
            )

    def close(self) -> None:
        """No batch is given any more; the one under way may be finished."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _begun(self, rank: int) -> list[int]:
        return [one.ticket.group_id for batch in self._under_way for one in batch if one.rank == rank]

    @property
    def drawing(self) -> bool:
        """Whether a batch is under way, or has come back and was not collected."""
        with self._changed:
            return self._pace.drawing or bool(self._drawn)

    @property
    def left_seconds(self) -> float:
        """How much longer the batches under way should take; 0 when there is none."""
        with self._changed:
            return self._pace.left_seconds(self._clock())

    @property
    def vitals(self) -> Vitals:
        """How the compute thread is doing."""
        with self._changed:
            idle_seconds = self._pace.idle_seconds(self._clock())
            return Vitals(idle_seconds=idle_seconds, batch_seconds=self._pace.p95_seconds)
