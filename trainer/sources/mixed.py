"""Batches of which the pool gives a fixed part and the live stream the rest, in order of arrival.

pool source ───k groups─→ ┐
                          ├ Batch → loop ─trained→ each source its own
online source ─the rest─→ ┘   (ring and reuse are the stream's alone)
"""

from trainer.batch import Batch
from trainer.sources.online import OnlineSource
from trainer.sources.pool_order import PoolOrderSource
from trainer.sources.share import Share


class MixedSource:
    """Asks both sources for their part of each batch."""

    def __init__(self, pool: PoolOrderSource, stream: OnlineSource, share: Share) -> None:
        self._pool = pool
        self._stream = stream
        self._share = share

    def next_batch(self, step: int) -> Batch:
        """The batch of this step, the pool's groups first; waits while either part can't be formed.

        Raises what the two sources raise.
        """
        pooled = self._share.pool_groups(step)
        parts = []
        if pooled:
            parts.append(self._pool.next_batch(step))
        if pooled < self._share.batch_groups:
            parts.append(self._stream.next_batch(step, self._share.batch_groups - pooled))
        return Batch(
            step=step,
            groups=tuple(group for part in parts for group in part.groups),
            uses=tuple(use for part in parts for use in part.uses),
        )

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""
        pooled = self._share.pool_groups(batch.step)
        if pooled:
            self._pool.trained(batch.part(slice(None, pooled)))
        if pooled < len(batch.groups):
            self._stream.trained(batch.part(slice(pooled, None)))

    @property
    def wait_seconds(self) -> float:
        """Time in which the trainer stood still for want of groups, in all."""
        return self._pool.wait_seconds + self._stream.wait_seconds

    @property
    def ring_groups(self) -> int:
        """Groups of the stream held for further use."""
        return self._stream.ring_groups

    def ring_contents(self) -> list[tuple[int, int, int]]:
        """(group_id, uses, last step) of each: for the checkpoint."""
        return self._stream.ring_contents()
