"""Whose ticket is whose: the life of every group of this rank, as a pure state machine.

        issue            receive              trained
waiting ─────→ leased ───────────→ received ─────────→ retired
   ↑ └──────────┼──────────────────────↑  (a late group of a ticket waiting again is taken)
   └────────────┘ expiry, death, give_back, first failure
waiting ─→ dead (poison: see `fail` and `_lose`)

No clock, socket or thread in here: times come in as arguments. Invariant: waiting + leased + received
never exceed `window`, and no more ids are ever live or trained than `target`.
"""

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping

from trainer.done import Deal, DoneIds
from trainer.feed.live import Live
from trainer.feed.received import Received

LOSSES_BEFORE_ALONE = 3
LOSSES_ALONE_BEFORE_DEAD = 2
FAILURES_BEFORE_DEAD = 2


class Leases:
    """Issues the ids of one rank in ascending order and follows each until it is trained or dead."""

    def __init__(
        self,
        done: DoneIds,
        *,
        target: int,
        window: int,
        in_order: bool = False,
        elsewhere: Callable[[int], bool] = lambda group_id: False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`in_order`: training needs the ids in ascending order, so none may take the room of a lower one.
        `elsewhere`: ids that a pool serves."""
        self._in_order = in_order
        self._deal = Deal(done, rank, world, elsewhere=elsewhere)
        self._next_ids = iter(self._deal)
        self._upcoming = next(self._next_ids)
        self._early: set[int] = set()
        self._live: dict[int, Live] = {}
        self._held: dict[bytes, set[int]] = {}
        self._waiting: list[int] = []
        self._alone: set[int] = set()
        self.target = target
        self.window = window
        self.trained = 0
        self.dead: dict[int, str] = {}

    # what is wanted

    @property
    def live(self) -> int:
        """Ids waiting, leased or received."""
        return len(self._live)

    @property
    def leased(self) -> int:
        """Tickets in the hands of workers; one that was issued twice counts twice."""
        return sum(len(held) for held in self._held.values())

    @property
    def oldest_issue(self) -> float | None:
        """When the ticket longest in a worker's hands was issued; None when no worker holds any."""
        return min((at for live in self._live.values() for at in live.holders.values()), default=None)

    @property
    def wanted(self) -> int:
        """How many tickets could be issued at once."""
        return len(self._waiting) + self._room()

    def held(self, worker: bytes) -> int:
        """Tickets in that worker's hands."""
        return len(self._held.get(worker, ()))

    def _room(self) -> int:
        return max(0, min(self.window - self.live, self.target - self.trained - self.live))

    def _room_beside_lower(self, group_id: int) -> int:
        """Room for an early id once the lower ones have theirs: the target is of the lowest ids, and in
        order training would wait for ever for one that finds the window full.
        """
        early = sum(other < group_id for other in self._early)
        lower = self._deal.place(group_id) - self._deal.place(self._upcoming) - early
        return min(self._room() - lower * self._in_order, self.target - self.trained - self.live - lower)

    # worker's side

    def issue(self, worker: bytes, count: int, now: float, workers: Collection[bytes]) -> list[int]:
        """At most `count` ids for that worker, returned ones first; `workers`: all who may be given any."""
        if count < 1 or not self._alone.isdisjoint(self._held.get(worker, ())):
            return []
        for group_id in sorted(self._alone.intersection(self._waiting)):
            takers = self._takers(group_id, workers)
            if worker in takers and not self.held(worker):
                self._waiting.remove(group_id)
                heapq.heapify(self._waiting)
                self._live[group_id].sent_alone = True
                return [self._hand(worker, group_id, now)]
            if worker == min(takers, default=None):
                return []  # it must first finish what it holds, else the lone ticket would wait for ever
        issued = self._issue_waiting(worker, count, now, workers)
        while len(issued) < count and self._room():
            group_id = self._take_upcoming()
            self._live[group_id] = Live()
            issued.append(self._hand(worker, group_id, now))
        return issued

    def issue_head_again(self, worker: bytes, now: float, patience: Mapping[bytes, float]) -> list[int]:
        """The lowest id that has not come, for a second worker, if later ones have come and wait for it.

        `patience`: seconds that a holder may take over it; one that is not named may take any time. Only
        where training needs the ids in order.
        """
        if not self._in_order:
            return []
        received = [group_id for group_id, live in self._live.items() if live.received]
        head = min((group_id for group_id, live in self._live.items() if not live.received), default=None)
        if head is None or head > max(received, default=-1) or head in self._alone:
            return []
        live = self._live[head]
        if len(live.holders) != 1 or worker in live.holders or worker in live.failed_by:
            return []
        [(holder, issued)] = live.holders.items()
        late = now - issued > patience.get(holder, math.inf)
        return [self._hand(worker, head, now)] if late else []

    def holders(self, group_id: int) -> list[bytes]:
        """Workers that hold its ticket."""
        return list(self._live[group_id].holders) if group_id in self._live else []

    def _issue_waiting(self, worker: bytes, count: int, now: float, workers: Collection[bytes]) -> list[int]:
        issued: list[int] = []
        passed_over: list[int] = []
        while self._waiting and len(issued) < count:
            group_id = heapq.heappop(self._waiting)
            if group_id in self._alone or worker not in self._takers(group_id, workers):
                passed_over.append(group_id)
            else:
                issued.append(self._hand(worker, group_id, now))
        for group_id in passed_over:
            heapq.heappush(self._waiting, group_id)
        return issued

    def _takers(self, group_id: int, workers: Collection[bytes]) -> Collection[bytes]:
        """Workers that have not failed it, or all where every one has."""
        failed_by = self._live[group_id].failed_by
        return [worker for worker in workers if worker not in failed_by] or workers

    def _hand(self, worker: bytes, group_id: int, now: float) -> int:
        self._live[group_id].holders[worker] = now
        self._held.setdefault(worker, set()).add(group_id)
        return group_id

    def _take_back(self, worker: bytes, group_id: int) -> None:
        del self._live[group_id].holders[worker]
        self._held[worker].discard(group_id)
        if not self._held[worker]:
            del self._held[worker]

    def _take_upcoming(self) -> int:
        self._skip_early()
        group_id = self._upcoming
        self._upcoming = next(self._next_ids)
        return group_id

    def claim(self) -> int:
        """The next id, which from now on is the caller's to train on and never issued here."""
        return self._take_upcoming()

    def _skip_early(self) -> None:
        while self._upcoming in self._early:
            self._early.discard(self._upcoming)
            self._upcoming = next(self._next_ids)

    def receive(self, group_id: int) -> Received:
        """A group arrived, from whomever. ACCEPTED means: keep its pixels, `train` will follow."""
        live = self._live.get(group_id)
        if live is not None:
            if live.received:
                return Received.DUPLICATE
            if not live.holders:
                self._waiting.remove(group_id)
                heapq.heapify(self._waiting)
            for worker in list(live.holders):
                self._take_back(worker, group_id)
            live.received = True
            self._alone.discard(group_id)
            return Received.ACCEPTED
        self._skip_early()
        if group_id < self._upcoming or group_id in self._early:
            return Received.DUPLICATE
        if not self._deal.is_mine(group_id) or self._room_beside_lower(group_id) < 1:
            return Received.UNWANTED
        # Drawn for an earlier session of this run and not yet issued in this one.
        self._early.add(group_id)
        self._live[group_id] = Live(received=True)
        return Received.ACCEPTED

    def fail(self, worker: bytes, group_id: int, reason: str, workers: Collection[bytes]) -> bool:
        """A worker could not draw it. True if that makes it a dead letter: two failures, on different workers
        where there are two."""
        live = self._live.get(group_id)
        if live is None or worker not in live.holders:
            return False
        self._take_back(worker, group_id)
        live.failures += 1
        live.failed_by.add(worker)
        untried = any(other not in live.failed_by for other in workers)
        refusals = len(live.failed_by) if untried else live.failures
        if refusals >= FAILURES_BEFORE_DEAD:
            self._bury(group_id, f"failed {live.failures} times, last: {reason}")
            return True
        self._wait_again(group_id, live)
        return False

    def give_back(self, worker: bytes, group_ids: Iterable[int]) -> None:
        """A worker returns tickets unharmed."""
        for group_id in group_ids:
            live = self._live.get(group_id)
            if live is not None and worker in live.holders:
                self._take_back(worker, group_id)
                self._wait_again(group_id, live)

    def lose_worker(self, worker: bytes, names: Mapping[bytes, str] | None = None) -> None:
        """A worker died: its tickets wait again, or are dead letters if they killed too many.

        `names`: of it and of all who may be given tickets, see `Losses`; without them each socket is another.
        """
        for group_id in sorted(self._held.get(worker, ())):
            self._lose(worker, group_id, names or {})

    def expire(
        self,
        worker: bytes,
        renewed: float,
        lease_seconds: float,
        now: float,
        names: Mapping[bytes, str] | None = None,
    ) -> list[int]:
        """Ids whose lease with that worker has run out; `renewed` is when the worker last made progress."""
        late = [
            group_id
            for group_id in sorted(self._held.get(worker, ()))
            if now > max(self._live[group_id].holders[worker], renewed) + lease_seconds
        ]
        for group_id in late:
            self._lose(worker, group_id, names or {})
        return late

    def _lose(self, worker: bytes, group_id: int, names: Mapping[bytes, str]) -> None:
        live = self._live[group_id]
        self._take_back(worker, group_id)
        for losses in (live.losses, live.losses_alone)[: 1 + live.sent_alone]:
            losses.add(names.get(worker, worker.hex()), names.values())
        if live.losses_alone.count >= LOSSES_ALONE_BEFORE_DEAD:
            reason = (
                f"{live.losses.count} workers died or stalled on it, {live.losses_alone.count} with it alone"
            )
            self._bury(group_id, reason)
            return
        if live.losses.count >= LOSSES_BEFORE_ALONE:
            self._alone.add(group_id)
        self._wait_again(group_id, live)

    def _wait_again(self, group_id: int, live: Live) -> None:
        if not live.holders:
            heapq.heappush(self._waiting, group_id)

    def _bury(self, group_id: int, reason: str) -> None:
        for worker in list(self._live[group_id].holders):
            self._take_back(worker, group_id)
        del self._live[group_id]
        self._alone.discard(group_id)
        self.dead[group_id] = reason

    # trainer's side

    @property
    def issued(self) -> dict[bytes, tuple[int, ...]]:
        """What each worker holds."""
        return {worker: tuple(sorted(held)) for worker, held in self._held.items()}

    def train(self, group_ids: Iterable[int]) -> None:
        """Received groups were trained on for the first time; their slots are free."""
        for group_id in group_ids:
            if not self._live[group_id].received:
                raise ValueError(f"group {group_id} was trained before it was received")
            del self._live[group_id]
            self.trained += 1
