"""What is known of one id between the issue of its ticket and its training."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(slots=True)
class Losses:
    """Deaths and expiries of workers with one ticket in hand.

    The first of each worker counts. Its second tells of the worker rather than of the ticket, as long as
    another could be asked that has not lost it yet; once all have, each counts again.
    """

    count: int = 0
    _lost_by: set[str] = field(default_factory=set)

    def add(self, worker: str, workers: Collection[str]) -> None:
        """One more, of `worker`. `workers` could be asked; all by what they are known by across sockets."""
        if worker not in self._lost_by or self._lost_by.issuperset(workers):
            self.count += 1
        self._lost_by.add(worker)


@dataclass(slots=True)
class Live:
    """One id between issue and training."""

    holders: dict[bytes, float] = field(default_factory=dict)
    """Worker to time of issue."""
    received: bool = False
    failures: int = 0
    failed_by: set[bytes] = field(default_factory=set)
    losses: Losses = field(default_factory=Losses)
    """After too many the ticket is sent with no other beside it."""
    sent_alone: bool = False
    """Whoever has it now was given nothing beside it."""
    losses_alone: Losses = field(default_factory=Losses)
