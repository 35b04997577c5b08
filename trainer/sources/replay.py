"""The batches of a recorded run again: the same groups, in the same order, as often.

ledger ─which─→ ┐
pool feed ──────┴→ [held until the last use] → Batch → loop ─trained→ room in the feed
"""

import threading

from trainer.batch import Batch, DrawnGroup
from trainer.composition import Held
from trainer.errors import DeadLetterError
from trainer.sources.recorded import RecordedRun
from trainer.sources.wait import GroupFeed, Wait, Watch
from trainer.stall import Want


class ReplaySource:
    """Its feed brings every group of the later steps once, in the order of `RecordedRun.needed_after`."""

    def __init__(
        self,
        feed: GroupFeed,
        recorded: RecordedRun,
        *,
        step: int,
        batch_groups: int,
        stop: threading.Event,
        watch: Watch | None = None,
    ) -> None:
        """`step`: trained so far."""
        self._feed = feed
        self._recorded = recorded
        self._step = step
        self._batch_groups = batch_groups
        self._wait = Wait(feed, stop, watch)
        self._held: dict[int, DrawnGroup] = {}
        self._untrained: set[int] = set()
        """Of those held, which still take room in the feed."""
        self._ring_groups = len(recorded.held(step))

    def next_batch(self, step: int) -> Batch:
        """The batch of this step; waits for its decoding.

        Raises DeadLetterError where a recorded group can't be read, StopRequestedError when asked to stop
        meanwhile, and what the feed raises.
        """
        chosen = self._recorded.batch(step)
        self._wait.until(lambda: self._lacks(step, {group_id for group_id, _ in chosen}), step)
        return Batch(
            step=step,
            groups=tuple(self._held[group_id] for group_id, _ in chosen),
            uses=tuple(use for _, use in chosen),
        )

    def _lacks(self, step: int, wanted: set[int]) -> Want | None:
        while groups := self._feed.take(self._batch_groups):
            self._held |= {group.group_id: group for group in groups}
            self._untrained.update(group.group_id for group in groups)
        missing = wanted.difference(self._held)
        if not missing:
            return None
        for group_id, reason in sorted(self._feed.dead_letters().items()):
            raise DeadLetterError(f"a replay needs every group, and {group_id} is lost: {reason}")
        return Want(step=step, needed=len(wanted), fresh=len(wanted) - len(missing), from_pool=True)

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""
        self._step = batch.step
        ids = {group.group_id for group in batch.groups}
        self._feed.trained(sorted(self._untrained & ids))
        self._untrained -= ids
        self._ring_groups += batch.fresh
        for group_id in ids:
            if self._recorded.is_over(group_id, batch.step):
                del self._held[group_id]
                self._ring_groups -= 1

    @property
    def wait_seconds(self) -> float:
        """Time in which the trainer stood still for want of groups, in all."""
        return self._wait.seconds

    @property
    def ring_groups(self) -> int:
        """Groups that the recorded run uses again."""
        return self._ring_groups

    def ring_contents(self) -> list[Held]:
        """(group_id, uses, last step) of each: for the checkpoint."""
        return self._recorded.held(self._step)
