"""Mixed batches in order of arrival: the pool's part is fixed, the rest and its reuse are the stream's."""

import threading
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from protocol.generation import GenerationSpec
from trainer.batch import DrawnGroup
from trainer.captions import Captions
from trainer.done import DoneIds
from trainer.feed.leases import Leases
from trainer.feed.received import Received
from trainer.plan import Plan
from trainer.sources.mixed import MixedSource
from trainer.sources.online import OnlineSource
from trainer.sources.pool_order import PoolOrderSource
from trainer.sources.ring import Ring
from trainer.sources.share import Share

PLAN = Plan(Captions([f"c{i}" for i in range(50)]), 0, GenerationSpec(views=2, size=8))
BATCH, STEPS = 6, 30


def _group(group_id: int, source: str) -> DrawnGroup:
    return DrawnGroup(
        ticket=PLAN.ticket(group_id),
        images_NHWC=np.zeros((2, 8, 8, 3), np.uint8),
        source=source,
        worker="w",
        content="c",
        engine="e",
        digest="0" * 16,
        arrived_seconds=0.0,
    )


class LiveFeed:
    """Real leases with one worker, which delivers `pace` groups while the trainer waits."""

    def __init__(self, target: int, pace: int) -> None:
        self.leases = Leases(DoneIds(), target=target, window=12)
        self._pace = pace
        self._arrived: list[DrawnGroup] = []

    def take(self, count: int) -> list[DrawnGroup]:
        taken, self._arrived = self._arrived[:count], self._arrived[count:]
        return taken

    def wait(self, seconds: float) -> None:
        for group_id in self.leases.issue(b"w", self._pace, 0.0, [b"w"]):
            assert self.leases.receive(group_id) is Received.ACCEPTED
            self._arrived.append(_group(group_id, "online"))

    def trained(self, group_ids: list[int]) -> None:
        self.leases.train(group_ids)

    def dead_letters(self) -> dict[int, str]:
        return {}


class ClaimingFeed:
    """A pool that serves whatever ids it can claim, a few ahead."""

    def __init__(self, leases: Leases, limit: int) -> None:
        self._ids: Iterator[int] = (leases.claim() for _ in range(limit))
        self.freed: list[int] = []

    def take(self, count: int) -> list[DrawnGroup]:
        taken = [next(self._ids, None) for _ in range(count)]
        return [_group(group_id, "pool") for group_id in taken if group_id is not None]

    def wait(self, seconds: float) -> None:
        raise AssertionError("the pool has everything at once")

    def trained(self, group_ids: list[int]) -> None:
        self.freed += group_ids

    def dead_letters(self) -> dict[int, str]:
        return {}


@pytest.mark.parametrize(
    ("part", "until", "reuse"), [(2, 0, 1), (3, 0, 4), (3, 50, 1), (6, 40, 1), (6, 40, 3)]
)
def test_each_batch_has_its_part_and_no_id_is_lost(part: int, until: int, reuse: int) -> None:
    """Whatever the stream's reuse: the ids trained on are the lowest ones, each new once."""
    share = Share(batch_groups=BATCH, share=part / BATCH, until=until)
    pooled = share.pool_groups_through(STEPS)
    live = LiveFeed(target=STEPS * BATCH - pooled, pace=2)
    pool = ClaimingFeed(live.leases, pooled)
    stop = threading.Event()
    source = MixedSource(
        PoolOrderSource(pool, batch_groups=part, stop=stop),
        OnlineSource(
            live,
            Ring(capacity=96, max_reuse=reuse, reuse_gap=1, seed=0),
            batch_groups=BATCH,
            min_fresh_groups=BATCH if reuse == 1 else 1,
            stop=stop,
        ),
        share,
    )
    uses: Counter[int] = Counter()
    for step in range(1, STEPS + 1):
        batch = source.next_batch(step)
        sources = [group.source for group in batch.groups]
        assert sources == ["pool"] * share.pool_groups(step) + ["online"] * (BATCH - share.pool_groups(step))
        for group, use in zip(batch.groups, batch.uses, strict=True):
            uses[group.group_id] += 1
            assert use == uses[group.group_id]
        source.trained(batch)
    assert max(uses.values()) == reuse
    assert len(pool.freed) == pooled
    if reuse == 1:
        assert sorted(uses) == list(range(STEPS * BATCH))
