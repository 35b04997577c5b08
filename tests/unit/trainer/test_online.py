"""The online source and its ring: fresh groups first, reuse within its bounds, waiting only when it must."""

import threading
from collections import Counter

import numpy as np
import pytest

from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.errors import StopRequestedError
from trainer.plan import Plan
from trainer.sources.online import OnlineSource
from trainer.sources.ring import Ring
from trainer.stall import Want

PLAN = Plan(Captions([f"c{i}" for i in range(50)]), 0, GenerationSpec(views=2, size=8))


def _group(group_id: int) -> DrawnGroup:
    return DrawnGroup(
        ticket=PLAN.ticket(group_id),
        images_NHWC=np.full((2, 8, 8, 3), group_id % 256, np.uint8),
        source="online",
        worker="w",
        content="c",
        engine="e",
        digest="0" * 16,
        arrived_seconds=0.0,
    )


class ScriptedFeed:
    """Delivers what the test puts in; `wait` stands for the time in which one more comes."""

    def __init__(self) -> None:
        self.ready: list[DrawnGroup] = []
        self.freed: list[int] = []
        self.waits = 0
        self.next_id = 0

    def deliver(self, count: int) -> None:
        self.ready += [_group(i) for i in range(self.next_id, self.next_id + count)]
        self.next_id += count

    def take(self, count: int) -> list[DrawnGroup]:
        taken, self.ready = self.ready[:count], self.ready[count:]
        return taken

    def wait(self, seconds: float) -> None:
        self.waits += 1
        self.deliver(1)

    def trained(self, group_ids: list[int]) -> None:
        self.freed += group_ids

    def dead_letters(self) -> dict[int, str]:
        return {}


class Notes:
    """Keeps what a watch is told; may ask for a stop at the first word."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.told: list[Want | bool] = []
        self._stop = stop

    def waiting(self, want: Want) -> None:
        self.told.append(want)
        if self._stop:
            self._stop.set()

    def over(self, *, goes_on: bool = True) -> None:
        self.told.append(goes_on)


def _source(feed: ScriptedFeed, *, max_reuse: int = 3, gap: int = 1, min_fresh: int = 0) -> OnlineSource:
    ring = Ring(capacity=64, max_reuse=max_reuse, reuse_gap=gap, seed=0)
    return OnlineSource(feed, ring, batch_groups=4, min_fresh_groups=min_fresh, stop=threading.Event())


def _run(source: OnlineSource, feed: ScriptedFeed, arrivals: list[int]) -> list[Batch]:
    batches = []
    for step, count in enumerate(arrivals, start=1):
        feed.deliver(count)
        batch = source.next_batch(step)
        source.trained(batch)
        batches.append(batch)
    return batches


def test_with_reuse_one_every_group_is_trained_once_in_order_of_arrival() -> None:
    """The source waits for whole batches of fresh groups."""
    feed = ScriptedFeed()
    batches = _run(_source(feed, max_reuse=1, min_fresh=4), feed, [4, 0, 6, 2])
    assert [g.group_id for b in batches for g in b.groups] == list(range(16))
    assert {use for b in batches for use in b.uses} == {1}
    assert feed.waits == 4
    assert feed.freed == list(range(16))


def test_the_ring_fills_what_is_missing_within_its_bounds() -> None:
    """Never over max_reuse, never within the gap, never twice in a batch, fresh ones always first."""
    feed = ScriptedFeed()
    arrivals = [4, 4, 4] + [2, 1, 0, 3] * 10
    batches = _run(_source(feed), feed, arrivals)
    uses = Counter(g.group_id for b in batches for g in b.groups)
    assert max(uses.values()) <= 3
    last: dict[int, int] = {}
    for batch in batches:
        ids = [g.group_id for g in batch.groups]
        assert len(set(ids)) == 4
        for group_id, use in zip(ids, batch.uses, strict=True):
            if group_id in last:
                assert batch.step - last[group_id] > 1
            last[group_id] = batch.step
            assert use == sum(group_id in [g.group_id for g in b.groups] for b in batches[: batch.step])
    assert sorted(feed.freed) == sorted(uses)
    assert any(use == 3 for b in batches for use in b.uses), "reuse did happen"


def test_min_fresh_makes_the_trainer_wait() -> None:
    """A ring full of groups is not enough."""
    feed = ScriptedFeed()
    source = _source(feed, min_fresh=2, max_reuse=50)
    batches = _run(source, feed, [4, 4, 4, 0, 0])
    assert [b.fresh for b in batches] == [4, 4, 4, 2, 2]
    assert feed.waits == 4
    assert source.wait_seconds > 0


def test_a_stop_ends_the_wait_and_keeps_what_had_come() -> None:
    """Ctrl-C while waiting; nothing was trained, so nothing is freed."""
    feed = ScriptedFeed()
    stop = threading.Event()
    ring = Ring(capacity=64, max_reuse=1, reuse_gap=1, seed=0)
    notes = Notes(stop)
    source = OnlineSource(feed, ring, batch_groups=4, min_fresh_groups=4, stop=stop, watch=notes)
    with pytest.raises(StopRequestedError):
        source.next_batch(1)
    assert feed.freed == []
    assert notes.told == [Want(step=1, needed=4, fresh=0, min_fresh=4), False]


def test_the_watch_learns_what_is_missing_and_why_the_ring_does_not_help() -> None:
    """Some were used a step ago, the others for the last time; then the wait is over."""
    feed, notes = ScriptedFeed(), Notes()
    ring = Ring(capacity=64, max_reuse=2, reuse_gap=2, seed=0)
    source = OnlineSource(feed, ring, batch_groups=4, min_fresh_groups=0, stop=threading.Event(), watch=notes)
    batches = _run(source, feed, [4, 4, 4, 0])
    assert notes.told == [True] * 4, "nothing to wait for: three fresh batches, then the first again"
    assert batches[3].uses == (2,) * 4
    feed.deliver(3)
    ring.used([(group, 2) for group in batches[1].groups], 4)
    source.next_batch(5)
    assert notes.told[4:] == [Want(step=5, needed=4, fresh=3, barred=12), True]


def test_a_full_ring_drops_the_most_used_then_the_oldest() -> None:
    """Capacity 3 of 5 groups."""
    ring = Ring(capacity=3, max_reuse=9, reuse_gap=0, seed=0)
    ring.used([(_group(0), 1), (_group(1), 1), (_group(2), 1)], 1)
    ring.used([(_group(1), 2)], 2)
    ring.used([(_group(3), 1)], 3)
    assert [entry[0] for entry in ring.contents()] == [0, 2, 3]
    ring.used([(_group(4), 1)], 4)
    assert [entry[0] for entry in ring.contents()] == [2, 3, 4]


def test_the_draw_depends_on_seed_step_and_contents_only() -> None:
    """Two rings with the same past draw the same; another seed draws otherwise."""

    def drawn(seed: int) -> list[list[int]]:
        ring = Ring(capacity=64, max_reuse=99, reuse_gap=0, seed=seed)
        ring.used([(_group(i), 1) for i in range(40)], 1)
        return [[g.group_id for g, _ in ring.draw(5, step)] for step in range(2, 12)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len({i for step in drawn(1) for i in step}) > 20, "all of the ring is used"


def test_asking_for_more_than_is_eligible_is_an_error() -> None:
    """The source looks first."""
    ring = Ring(capacity=8, max_reuse=2, reuse_gap=3, seed=0)
    ring.used([(_group(0), 1)], 1)
    with pytest.raises(ValueError, match="0 eligible"):
        ring.draw(1, 4)


def test_a_batch_labels_and_keys_every_image() -> None:
    """Group-major: caption ids, images and augmentation keys line up."""
    batch = Batch(step=3, groups=(_group(5), _group(61)), uses=(1, 2))
    assert batch.images_NHWC().shape == (4, 8, 8, 3)
    assert list(batch.images_NHWC()[:, 0, 0, 0]) == [5, 5, 61, 61]
    ids = [PLAN.ticket(5).caption_id, PLAN.ticket(61).caption_id]
    assert list(batch.caption_ids()) == [ids[0], ids[0], ids[1], ids[1]]
    assert batch.keys(9) == [(9, 5, 0, 1), (9, 5, 1, 1), (9, 61, 2, 2), (9, 61, 3, 2)]
    assert batch.fresh == 1
