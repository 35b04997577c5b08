"""What the first rank makes of the others' reports: all but the pixels."""

import msgspec
import numpy as np

from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.feed.feed import FeedStatus
from trainer.feed.status import total
from trainer.plan import Plan
from trainer.pool.files import Place
from trainer.pool.index import PoolImage
from trainer.rank_group import RankGroup
from trainer.rank_reports import RankReport, RankReports, merged
from trainer.supply import Supply
from trainer.supply_parts import Parts

PLAN = Plan(Captions(["a", "b", "c"]), 5, GenerationSpec(views=2, size=8))
POOLED = (
    PoolImage(
        caption_id=1,
        image=0,
        place=Place(file="f", offset=0, size=0, digest="", member="m"),
        seed=None,
        guidance=2.5,
        engine="e",
        content="c",
    ),
)


def _status(**fields: object) -> FeedStatus:
    usual = {
        "workers": 1,
        "groups_received": 0,
        "buffered": 0,
        "leased": 0,
        "wanted": 0,
        "dead_letters": 0,
        "refused": {},
    }
    return FeedStatus(**(usual | fields))  # type: ignore[arg-type]  # of mixed types


def _group(group_id: int, images: tuple[PoolImage, ...] = ()) -> DrawnGroup:
    return DrawnGroup(
        ticket=PLAN.ticket(group_id),
        images_NHWC=np.full((2, 8, 8, 3), group_id, np.uint8),
        source="pool" if images else "online",
        worker="w",
        content="c",
        engine="e",
        digest=f"{group_id:016x}",
        arrived_seconds=1.5,
        images=images,
    )


def _supply(dead: dict[int, str], **fields: object) -> Supply:
    parts = Parts(make_source=lambda stop, watch, lockstep: None)  # type: ignore[arg-type,return-value]  # not asked for
    supply = Supply(parts, None, "", None, None)  # type: ignore[arg-type]  # it is never switched
    supply.hear([], dead)
    supply.own_status = lambda: _status(**fields)  # type: ignore[method-assign]  # it has no feed
    return supply


class TwoRanks(RankGroup):
    """The messages of both ranks, for either to be handed."""

    messages: list[bytes] = []  # noqa: RUF012 - of the test that sets it

    def share(self, own: bytes) -> list[bytes]:
        self.messages[self.rank] = own
        return list(self.messages)


def test_the_first_rank_knows_all_but_the_pixels_of_the_others() -> None:
    """What the ledger writes of a group, its uses, the counts of the feed and its dead letters."""
    batch = Batch(step=3, groups=(_group(7), _group(4), _group(5, POOLED)), uses=(1, 2, 1))
    TwoRanks.messages = [b"", b""]
    second = RankReports(TwoRanks(rank=1, world=2), PLAN, _supply({9: "poison"}, buffered=4, workers=2))
    assert second.exchange(batch, ring_groups=11) == [batch]
    supply = _supply({}, buffered=1)
    first = RankReports(TwoRanks(rank=0, world=2), PLAN, supply)
    own = Batch(step=3, groups=(_group(6),), uses=(1,))
    mine, theirs = first.exchange(own, ring_groups=3)
    assert mine is own
    assert theirs.uses == batch.uses
    for known, group in zip(theirs.groups, batch.groups, strict=True):
        assert known.ticket == group.ticket
        assert known.images_NHWC.size == 0
    for at in (0, 2):
        for field in ("source", "worker", "content", "engine", "digest", "seeds", "guidance"):
            assert getattr(theirs.groups[at], field) == getattr(batch.groups[at], field)
    assert merged([mine, theirs]).uses == (1, 1, 2, 1)
    assert [g.group_id for g in merged([mine, theirs]).groups] == [6, 7, 4, 5]
    assert first.other_ring_groups == 11
    assert supply.status().buffered == 5
    assert supply.status().workers == 2
    assert supply.dead_letters() == {9: "poison"}


def test_a_report_has_no_pixels() -> None:
    """A few hundred bytes a group, whatever its size."""
    TwoRanks.messages = [b"", b""]
    reports = RankReports(TwoRanks(rank=1, world=2), PLAN, _supply({}))
    reports.exchange(Batch(step=1, groups=(_group(1),), uses=(1,)), 0)
    assert len(TwoRanks.messages[1]) < 600
    assert msgspec.msgpack.decode(TwoRanks.messages[1], type=RankReport).uses == ((1, 1),)


def test_the_rings_of_all_ranks_are_one_by_ids() -> None:
    """As a checkpoint of any number of ranks has it."""
    TwoRanks.messages = [b"", msgspec.msgpack.encode([(3, 1, 9), (5, 2, 8)])]
    reports = RankReports(TwoRanks(rank=0, world=2), PLAN, _supply({}))
    assert reports.rings([(4, 1, 9)]) == ((3, 1, 9), (4, 1, 9), (5, 2, 8))
    alone = RankReports(RankGroup(), PLAN, _supply({}))
    assert alone.rings([(5, 1, 9), (4, 1, 9)]) == ((5, 1, 9), (4, 1, 9)), "in the order of their coming"


def test_feeds_add_up_and_workers_do_not() -> None:
    """A worker is with every rank at once."""
    statuses = [
        _status(workers=2, connected=3, buffered=1, refused={"shape": 1}, heard_seconds_ago=2.0),
        _status(workers=3, connected=3, buffered=4, refused={"shape": 2, "nbytes": 1}, failure="boom"),
    ]
    whole = total(statuses)
    assert (whole.workers, whole.connected, whole.buffered) == (3, 3, 5)
    assert whole.refused == {"shape": 3, "nbytes": 1}
    assert whole.heard_seconds_ago == 2.0
    assert whole.failure == "boom"
    assert total(statuses[:1]) is statuses[0]
