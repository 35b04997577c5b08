"""Batches whose composition depends on the step alone: see `trainer.composition` for the rule.

feed ─groups, in any order→ [held by id] ─those that the step names→ Batch → loop ─trained→ slots to the feed
                                ↑ └── kept until the last use
      after a resume the ring ──┘  is drawn again first
"""

import threading
from collections.abc import Callable, Mapping

from trainer.batch import Batch, DrawnGroup
from trainer.composition import Composition, Held, RankComposition
from trainer.errors import DeadLetterError
from trainer.lockstep import Lockstep
from trainer.sources.wait import GroupFeed, Wait, Watch
from trainer.stall import Want


class TicketOrderSource:
    """Hands out the batches of a composition and takes back word of their training."""

    def __init__(
        self,
        feed: GroupFeed,
        composition: Composition | RankComposition,
        *,
        step: int,
        stop: threading.Event,
        watch: Watch | None = None,
        lockstep: Lockstep | None = None,
        pooled: Callable[[int], bool] = lambda group_id: False,
        held: Mapping[int, DrawnGroup] | None = None,
    ) -> None:
        """`step`: trained so far. What the ring held then is expected from the feed again, but for those
        `held`. `pooled`: whether a group is read from a pool."""
        self._feed = feed
        self._composition = composition
        self._step = step
        self._ring_groups = len(composition.ring(step))
        self._wait = Wait(feed, stop, watch, lockstep)
        self._pooled = pooled
        self._held: dict[int, DrawnGroup] = dict(held or {})
        self._redrawn = {group_id for group_id, _, _ in composition.ring(step)}.difference(self._held)
        """Of the ring, those that have not come again yet."""

    def next_batch(self, step: int) -> Batch:
        """The batch of this step; waits until all its groups have come.

        Raises DeadLetterError when one never will, StopRequestedError when asked to stop meanwhile,
        FeedFailedError when the feed has died.
        """
        chosen = self._composition.batch(step)
        self._wait.until(lambda: self._lacks(step, [group_id for group_id, _ in chosen]), step)
        return Batch(
            step=step,
            groups=tuple(self._held[group_id] for group_id, _ in chosen),
            uses=tuple(use for _, use in chosen),
        )

    def _lacks(self, step: int, group_ids: list[int]) -> Want | None:
        self._take_all()
        wanted = self._redrawn.union(group_ids)
        missing = wanted.difference(self._held)
        if not missing:
            return None
        for group_id, reason in sorted(self._feed.dead_letters().items()):
            raise DeadLetterError(
                f"in ticket order no group may be left out, and {group_id} is dead: {reason}"
            )
        return Want(
            step=step,
            needed=len(wanted),
            fresh=len(wanted) - len(missing),
            from_pool=all(map(self._pooled, missing)),
        )

    def _take_all(self) -> None:
        """All that have come, whatever step they are for; those trained before free their slots at once."""
        while groups := self._feed.take(self._composition.batch_groups):
            self._held |= {group.group_id: group for group in groups}
            again = self._redrawn.intersection(group.group_id for group in groups)
            if again:
                self._redrawn -= again
                self._feed.trained(sorted(again))

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""
        self._step = batch.step
        self._ring_groups += batch.fresh - self._composition.new_groups
        for group in batch.groups[-self._composition.new_groups :]:
            del self._held[group.group_id]
        self._feed.trained([g.group_id for g, use in zip(batch.groups, batch.uses, strict=True) if use == 1])

    def ring_held(self) -> dict[int, DrawnGroup]:
        """The groups of the ring that are at hand, by id: for a source that takes over after this step."""
        ring = {group_id for group_id, _, _ in self._composition.ring(self._step)}
        return {group_id: group for group_id, group in self._held.items() if group_id in ring}

    @property
    def wait_seconds(self) -> float:
        """Time in which the trainer stood still for want of groups, in all."""
        return self._wait.seconds

    @property
    def ring_groups(self) -> int:
        """Groups held for further use, those that wait for their first not among them."""
        return self._ring_groups

    def ring_contents(self) -> list[Held]:
        """(group_id, uses, last step) of each: for the checkpoint."""
        return list(self._composition.ring(self._step))
