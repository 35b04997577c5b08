"""Batches from a pool in the order of ids: each group is new, since another visit costs only its decoding.

feed ─groups, in order→ [held] → Batch → loop ─trained→ room in the feed
"""

import threading

from trainer.batch import Batch, DrawnGroup
from trainer.lockstep import Lockstep
from trainer.sources.wait import GroupFeed, Wait, Watch
from trainer.stall import Want


class PoolOrderSource:
    """The batch of a step is the next groups that can be read, whatever the time they take."""

    def __init__(
        self,
        feed: GroupFeed,
        *,
        batch_groups: int,
        stop: threading.Event,
        watch: Watch | None = None,
        lockstep: Lockstep | None = None,
    ) -> None:
        self._feed = feed
        self._batch_groups = batch_groups
        self._wait = Wait(feed, stop, watch, lockstep)
        self._held: list[DrawnGroup] = []

    def next_batch(self, step: int) -> Batch:
        """The batch of this step; waits for its decoding.

        Raises StopRequestedError when asked to stop meanwhile, FeedFailedError when a process has died,
        PoolDamagedError when too much can't be used.
        """
        self._wait.until(lambda: self._lacks(step), step)
        return Batch(step=step, groups=tuple(self._held), uses=(1,) * len(self._held))

    def _lacks(self, step: int) -> Want | None:
        self._held += self._feed.take(self._batch_groups - len(self._held))
        if len(self._held) == self._batch_groups:
            return None
        return Want(step=step, needed=self._batch_groups, fresh=len(self._held), from_pool=True)

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""
        self._held.clear()
        self._feed.trained([group.group_id for group in batch.groups])

    @property
    def wait_seconds(self) -> float:
        """Time in which the trainer stood still for want of groups, in all."""
        return self._wait.seconds

    @property
    def ring_groups(self) -> int:
        """None: no group is kept."""
        return 0

    def ring_contents(self) -> list[tuple[int, int, int]]:
        """For the checkpoint: nothing."""
        return []
