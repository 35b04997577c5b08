"""Batches from a live stream in order of arrival, with bounded reuse.

feed ─fresh groups→ [fresh] ─┬→ Batch → loop ─trained→ ring, and slots back to the feed
                     ring ───┘  fills what is missing

A batch takes never-trained groups first, oldest first. When fewer than a batch's worth are there, groups
drawn at random from the ring fill it, so long as at least `min_fresh_groups` are fresh; only when that can't
be does the trainer wait. With an `AutoReuse` a batch takes as many fresh groups as that asks for, and waits
for them.
"""

import threading
import time
from collections.abc import Callable

from trainer.batch import Batch, DrawnGroup
from trainer.lockstep import Lockstep
from trainer.sources.auto_reuse import AutoReuse
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
        auto_reuse: AutoReuse | None = None,
        backlog: Callable[[], int] = lambda: 0,
    ) -> None:
        """`backlog`: fresh groups that the feed holds, for `auto_reuse`."""
        self._feed = feed
        self._ring = ring
        self._batch_groups = batch_groups
        self._min_fresh_groups = min_fresh_groups
        self._wait = Wait(feed, stop, watch, lockstep)
        self._fresh: list[DrawnGroup] = []
        self._auto_reuse = auto_reuse
        self._backlog = backlog
        self._formed: tuple[float, float, int] | None = None
        """Of the batch that is trained: seconds waited, time, backlog; None while the ring is too small."""

    def next_batch(self, step: int, groups: int | None = None) -> Batch:
        """The batch of this step, or `groups` of it where another source has the rest, all of them fresh;
        waits while it can't be formed.

        Raises StopRequestedError when asked to stop meanwhile, FeedFailedError when the feed has died.
        """
        needed = self._batch_groups if groups is None else groups
        # A wait for the ring's first groups says nothing of the reuse that would do without one.
        measures = self._auto_reuse is not None and len(self._ring.eligible(step)) >= needed
        waited_before = self._wait.seconds
        self._wait.until(lambda: self._lacks(step, needed), step)
        waited = self._wait.seconds - waited_before
        self._formed = (waited, time.monotonic(), self._backlog()) if measures else None
        missing = needed - len(self._fresh)
        chosen = [(group, 1) for group in self._fresh] + self._ring.draw(missing, step)
        return Batch(step=step, groups=tuple(g for g, _ in chosen), uses=tuple(use for _, use in chosen))

    def _lacks(self, step: int, needed: int) -> Want | None:
        reusable = len(self._ring.eligible(step))
        min_fresh = max(0, self._min_fresh_groups - (self._batch_groups - needed))
        if self._auto_reuse is None:
            enough, at_most = max(min_fresh, needed - reusable), needed
        else:
            enough = at_most = max(min_fresh, needed - reusable, self._auto_reuse.fresh_groups(needed))
        self._fresh += self._feed.take(at_most - len(self._fresh))
        fresh = len(self._fresh)
        if fresh >= enough:
            return None
        barred = len(self._ring) - reusable + self._ring.used_up
        return Want(
            step=step,
            needed=needed,
            fresh=fresh,
            min_fresh=min_fresh,
            reusable=reusable,
            barred=0 if fresh + reusable >= needed else barred,
        )

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""
        self._fresh.clear()
        self._feed.trained([g.group_id for g, use in zip(batch.groups, batch.uses, strict=True) if use == 1])
        self._ring.used(list(zip(batch.groups, batch.uses, strict=True)), batch.step)
        if self._auto_reuse is not None and self._formed is not None:
            waited, formed_at, backlog = self._formed
            worked = time.monotonic() - formed_at
            self._auto_reuse.stepped(
                len(batch.groups), wait_seconds=waited, work_seconds=worked, backlog=backlog
            )

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
