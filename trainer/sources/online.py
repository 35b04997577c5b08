"""Batches from a live stream in order of arrival, with bounded reuse.

feed ─fresh groups→ [fresh] ─┬→ Batch → loop ─trained→ ring, and slots back to the feed
                     ring ───┘  fills what is missing

A batch takes never-trained groups first, oldest first. When fewer than a batch's worth are there, groups
drawn at random from the ring fill it, so long as at least `min_fresh_groups` are fresh; only when that can't
be does the trainer wait.
"""

import threading

from trainer.batch import Batch, DrawnGroup
from trainer.lockstep import Lockstep
from trainer.sources.ring import Ring
from trainer.sources.wait import GroupFeed, Wait, Watch
from trainer.stall import Want


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
        watch: Watch | None = None,
        lockstep: Lockstep | None = None,
    ) -> None:
        self._feed = feed
        self._ring = ring
        self._batch_groups = batch_groups
        self._min_fresh_groups = min_fresh_groups
        self._wait = Wait(feed, stop, watch, lockstep)
        self._fresh: list[DrawnGroup] = []

    def next_batch(self, step: int, groups: int | None = None) -> Batch:
        """The batch of this step, or `groups` of it where another source has the rest, all of them fresh;
        waits while it can't be formed.

        Raises StopRequestedError when asked to stop meanwhile, FeedFailedError when the feed has died.
        """
        needed = self._batch_groups if groups is None else groups
        self._wait.until(lambda: self._lacks(step, needed), step)
        missing = needed - len(self._fresh)
        chosen = [(group, 1) for group in self._fresh] + self._ring.draw(missing, step)
        return Batch(step=step, groups=tuple(g for g, _ in chosen), uses=tuple(use for _, use in chosen))

    def _lacks(self, step: int, needed: int) -> Want | None:
        self._fresh += self._feed.take(needed - len(self._fresh))
        fresh, reusable = len(self._fresh), len(self._ring.eligible(step))
        min_fresh = max(0, self._min_fresh_groups - (self._batch_groups - needed))
        if fresh == needed:
            return None
        if fresh >= min_fresh and fresh + reusable >= needed:
            return None
        return Want(
            step=step,
            needed=needed,
            fresh=fresh,
            min_fresh=min_fresh,
            reusable=reusable,
            barred=len(self._ring) - reusable + self._ring.used_up,
        )

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""
        self._fresh.clear()
        self._feed.trained([g.group_id for g, use in zip(batch.groups, batch.uses, strict=True) if use == 1])
        self._ring.used(list(zip(batch.groups, batch.uses, strict=True)), batch.step)

    @property
    def wait_seconds(self) -> float:
        """Time in which the trainer stood still for want of groups, in all."""
        return self._wait.seconds

    @property
    def ring_groups(self) -> int:
        """Groups held for further use."""
        return len(self._ring)

    def ring_contents(self) -> list[tuple[int, int, int]]:
        """(group_id, uses, last step) of each: for the checkpoint."""
        return self._ring.contents()
