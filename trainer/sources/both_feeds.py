"""A live feed and a pool's as one, for a source that asks for groups by their ids."""

from trainer.batch import DrawnGroup
from trainer.sources.share import TicketShare
from trainer.sources.wait import GroupFeed


class BothFeeds:
    """A `GroupFeed`. Each id belongs to one of the two, by the share."""

    def __init__(self, feed: GroupFeed, pool: GroupFeed, share: TicketShare) -> None:
        self._feed = feed
        self._pool = pool
        self._share = share

    def take(self, count: int) -> list[DrawnGroup]:
        """At most that many arrived groups, the pool's first."""
        taken = self._pool.take(count)
        return taken + self._feed.take(count - len(taken))

    def wait(self, seconds: float) -> None:
        """Until a worker's group arrives, at most that long: the pool's are decoded ahead."""
        self._feed.wait(min(seconds, 0.05))

    def trained(self, group_ids: list[int]) -> None:
        """Frees the slots of groups trained for the first time."""
        pooled = [group_id for group_id in group_ids if self._share.is_pools(group_id)]
        self._pool.trained(pooled)
        self._feed.trained([group_id for group_id in group_ids if not self._share.is_pools(group_id)])

    def dead_letters(self) -> dict[int, str]:
        """Groups that neither can give, with their reasons."""
        return self._feed.dead_letters() | self._pool.dead_letters()
