"""Batches from a live stream, with bounded reuse.

feed ─fresh groups→ [fresh] ─┬→ Batch → loop ─trained→ ring, and slots back to the feed
                     ring ───┘  fills what is missing

A batch takes never-trained groups first, oldest first. When fewer than a batch's worth are there, groups
drawn at random from the ring fill it, so long as at least `min_fresh_groups` are fresh; only when that can't
be does the trainer wait.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from trainer.batch import Batch, DrawnGroup
from trainer.errors import StopRequestedError
from trainer.feed.feed import FeedStatus
from trainer.sources.ring import Ring

WAIT_SECONDS = 0.2


class GroupFeed(Protocol):
    """What the source needs of a feed."""

    def take(self, count: int) -> list[DrawnGroup]:
        """At most that many arrived groups."""

    def wait(self, seconds: float) -> None:
        """Until something arrives, at most that long."""

    def trained(self, group_ids: list[int]) -> None:
        """Frees the slots of groups trained for the first time."""

    def status(self) -> FeedStatus:
        """Counts for people."""


class OnlineSource:
    """Hands out batches and takes back word of their training."""

    def __init__(
        self,
        feed: GroupFeed,
        ring: Ring,
        *,
        batch_groups: int,
        min_fresh_groups: int,
        stop: threading.Event,
        on_wait: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`on_wait` is told, while a batch can't be formed, for how long that has been so, in seconds."""
        self._feed = feed
        self._ring = ring
        self._batch_groups = batch_groups
        self._min_fresh_groups = min_fresh_groups
        self._stop = stop
        self._on_wait = on_wait
        self._fresh: list[DrawnGroup] = []
        self.wait_seconds = 0.0
        """Time in which the trainer stood still for want of groups, in all."""

    def next_batch(self, step: int) -> Batch:
        """The batch of this step; waits while none can be formed.

        Raises StopRequestedError when asked to stop meanwhile, FeedFailedError when the feed has died.
        """
        started = time.monotonic()
        while True:
            self._fresh += self._feed.take(self._batch_groups - len(self._fresh))
            missing = self._batch_groups - len(self._fresh)
            enough_fresh = len(self._fresh) >= self._min_fresh_groups
            if missing == 0 or (enough_fresh and missing <= len(self._ring.eligible(step))):
                break
            if self._stop.is_set():
                raise StopRequestedError("asked to stop while waiting for groups")
            waited = time.monotonic() - started
            self._on_wait(waited)
            self._feed.wait(WAIT_SECONDS)
        self.wait_seconds += time.monotonic() - started
        chosen = [(group, 1) for group in self._fresh] + self._ring.draw(missing, step)
        return Batch(step=step, groups=tuple(g for g, _ in chosen), uses=tuple(use for _, use in chosen))

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""
        self._fresh.clear()
        self._feed.trained([g.group_id for g, use in zip(batch.groups, batch.uses, strict=True) if use == 1])
        self._ring.used(list(zip(batch.groups, batch.uses, strict=True)), batch.step)

    @property
    def ring_groups(self) -> int:
        """Groups held for further use."""
        return len(self._ring)

    def ring_contents(self) -> list[tuple[int, int, int]]:
        """(group_id, uses, last step) of each: for the checkpoint."""
        return self._ring.contents()
