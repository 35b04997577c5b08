"""What the loop asks of a source; it can't tell which one it has."""

from typing import Protocol

from trainer.batch import Batch


class Source(Protocol):
    """Hands out batches and takes back word of their training."""

    def next_batch(self, step: int) -> Batch:
        """The batch of this step; waits while none can be formed."""

    def trained(self, batch: Batch) -> None:
        """The optimizer has stepped on that batch."""

    @property
    def wait_seconds(self) -> float:
        """Time in which the trainer stood still for want of groups, in all."""

    @property
    def ring_groups(self) -> int:
        """Groups held for further use."""

    def ring_contents(self) -> list[tuple[int, int, int]]:
        """(group_id, uses, last step) of each: for the checkpoint."""
