"""Each id belongs to one of the two feeds, and so does the word of its training."""

import numpy as np

from protocol.generation import GenerationSpec
from trainer.batch import DrawnGroup
from trainer.captions import Captions
from trainer.composition import Composition
from trainer.plan import Plan
from trainer.sources.both_feeds import BothFeeds
from trainer.sources.share import TicketShare

PLAN = Plan(Captions([f"c{i}" for i in range(9)]), 0, GenerationSpec(views=2, size=8))


class ListFeed:
    """Has these groups at once."""

    def __init__(self, ids: list[int], dead: dict[int, str]) -> None:
        self._ids = ids
        self._dead = dead
        self.freed: list[int] = []
        self.waited: list[float] = []

    def take(self, count: int) -> list[DrawnGroup]:
        taken, self._ids = self._ids[:count], self._ids[count:]
        return [
            DrawnGroup(
                ticket=PLAN.ticket(group_id),
                images_NHWC=np.zeros((2, 8, 8, 3), np.uint8),
                source="online",
                worker="w",
                content="c",
                engine="e",
                digest="0" * 16,
                arrived_seconds=0.0,
            )
            for group_id in taken
        ]

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)

    def trained(self, group_ids: list[int]) -> None:
        self.freed += group_ids

    def dead_letters(self) -> dict[int, str]:
        return self._dead


def test_both_are_emptied_and_each_is_told_of_its_own() -> None:
    """The pool has the even ids here."""
    rule = Composition(batch_groups=4, reuse=2, ring_batches=3, gap=1, seed=0)
    live, pool = ListFeed([1, 3, 5], {7: "failed"}), ListFeed([0, 2], {4: "lost"})
    both = BothFeeds(live, pool, TicketShare(rule, share=0.5, until=0))
    assert [group.group_id for group in both.take(4)] == [0, 2, 1, 3]
    assert [group.group_id for group in both.take(4)] == [5]
    assert both.take(4) == []
    both.trained([0, 1, 2, 5])
    assert (live.freed, pool.freed) == ([1, 5], [0, 2])
    assert both.dead_letters() == {7: "failed", 4: "lost"}
    both.wait(9.0)
    assert live.waited[0] <= 0.1
    assert not pool.waited
