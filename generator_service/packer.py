"""Packs tickets into static batches: whole groups, the neediest rank first, the tail after a short wait.

Pure: it is told the time.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.tickets import Ticket


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A ticket and the trainer rank that ordered it."""

    rank: int
    ticket: Ticket


class Packer:
    """Queues tickets by rank and hands them out a static batch at a time, in each rank's own order."""

    def __init__(self, *, groups_per_batch: int, pack_seconds: float) -> None:
        self._groups_per_batch = groups_per_batch
        self._pack_seconds = pack_seconds
        self._queues: dict[int, deque[Ticket]] = {}
        self._wanted: dict[int, int] = {}
        self._newest_at = 0.0

    def resize(self, groups_per_batch: int) -> None:
        """From now on batches are of so many groups; what waits stays."""
        self._groups_per_batch = groups_per_batch

    def add(self, rank: int, tickets: Iterable[Ticket], now: float) -> None:
        """Queues tickets; one whose group is queued for that rank already is not queued twice."""
        queue = self._queues.setdefault(rank, deque())
        known = {ticket.group_id for ticket in queue}
        for ticket in tickets:
            if ticket.group_id not in known:
                known.add(ticket.group_id)
                queue.append(ticket)
                self._newest_at = now

    def want(self, rank: int, groups: int) -> None:
        """Notes how many groups a rank would take at once."""
        self._wanted[rank] = groups

    def cancel(self, rank: int, group_ids: Iterable[int]) -> None:
        """Drops those of the groups that still wait here."""
        unwanted = set(group_ids)
        queue = self._queues.get(rank, deque())
        self._queues[rank] = deque(ticket for ticket in queue if ticket.group_id not in unwanted)

    def drop_rank(self, rank: int) -> tuple[int, ...]:
        """Forgets a rank; returns the group ids that waited for it."""
        self._wanted.pop(rank, None)
        return tuple(ticket.group_id for ticket in self._queues.pop(rank, deque()))

    def waiting(self, rank: int) -> tuple[int, ...]:
        """Group ids that wait for a rank, oldest first."""
        return tuple(ticket.group_id for ticket in self._queues.get(rank, deque()))

    def due_at(self, now: float, *, full: bool = False) -> float | None:
        """When `take` will give a batch if nothing more comes; None if it won't."""
        queued = sum(map(len, self._queues.values()))
        if queued >= self._groups_per_batch:
            return now
        return self._newest_at + self._pack_seconds if queued and not full else None

    def take(self, now: float, *, full: bool = False) -> list[Assignment]:
        """The next static batch, part-filled only when it was time, and never with `full`; empty when there
        is none."""
        due_at = self.due_at(now, full=full)
        if due_at is None or now < due_at:
            return []
        batch: list[Assignment] = []
        for rank in sorted(self._queues, key=lambda rank: (-self._wanted.get(rank, 0), rank)):
            queue = self._queues[rank]
            while queue and len(batch) < self._groups_per_batch:
                batch.append(Assignment(rank=rank, ticket=queue.popleft()))
        return batch
