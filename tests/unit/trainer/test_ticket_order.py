"""Ticket order: whatever the arrivals, the batches are those of the composition, also after a resume."""

import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.composition import Composition
from trainer.done import DoneIds
from trainer.errors import DeadLetterError, StopRequestedError
from trainer.feed.leases import Leases
from trainer.feed.received import Received
from trainer.plan import Plan
from trainer.sources.ticket_order import TicketOrderSource

PLAN = Plan(Captions([f"c{i}" for i in range(50)]), 0, GenerationSpec(views=2, size=8))
RULE = Composition(batch_groups=6, reuse=3, ring_batches=4, gap=1, seed=5)
STEPS = 20


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


class UnrulyFeed:
    """Real leases, and workers that deliver in any order, twice, for an earlier session, or not at all."""

    def __init__(self, seed: int, step: int = 0, window: int = 6, dead: dict[int, str] | None = None) -> None:
        held = {group_id for group_id, _, _ in RULE.ring(step)}
        trained = [i for i in range(RULE.new_ids(step)) if i not in held]
        target = len(held) + RULE.new_ids(STEPS) - RULE.new_ids(step)
        self.leases = Leases(DoneIds(0, trained), target=target, window=window, in_order=True)
        self.dead = dead or {}
        self.accepted: list[int] = []
        self._random = random.Random(seed)
        self._arrived: list[int] = []
        self._holds: dict[bytes, list[int]] = {b"a": [], b"b": [], b"c": []}

    def take(self, count: int) -> list[DrawnGroup]:
        taken, self._arrived = self._arrived[:count], self._arrived[count:]
        return [_group(group_id) for group_id in taken]

    def wait(self, seconds: float) -> None:
        worker = self._random.choice(list(self._holds))
        holds = self._holds[worker]
        match self._random.randrange(8):
            case 0:
                self.leases.give_back(worker, holds)  # not a loss: those would in the end make dead letters
                holds.clear()
            case 1:
                self._deliver(self._random.randrange(RULE.new_ids(STEPS)))
            case 2:
                holds += self.leases.issue_head_again(worker, 9.0, dict.fromkeys(self._holds, 1.0))
            case 3 | 4:
                holds += self.leases.issue(worker, self._random.randrange(1, 4), 0.0, list(self._holds))
            case _ if holds:
                self._deliver(holds.pop(self._random.randrange(len(holds))))

    def _deliver(self, group_id: int) -> None:
        if group_id not in self.dead and self.leases.receive(group_id) is Received.ACCEPTED:
            self._arrived.append(group_id)
            self.accepted.append(group_id)

    def trained(self, group_ids: list[int]) -> None:
        self.leases.train(group_ids)

    def dead_letters(self) -> dict[int, str]:
        return self.dead if self.leases.live == self.leases.window else {}


def _source(feed: UnrulyFeed, step: int = 0) -> TicketOrderSource:
    return TicketOrderSource(feed, RULE, step=step, stop=threading.Event())


def _run(source: TicketOrderSource, first: int, last: int) -> list[Batch]:
    batches = []
    for step in range(first, last + 1):
        batch = source.next_batch(step)
        source.trained(batch)
        batches.append(batch)
    return batches


def _as_uses(batch: Batch) -> tuple[tuple[int, int], ...]:
    return tuple((group.group_id, use) for group, use in zip(batch.groups, batch.uses, strict=True))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), stop_after=st.integers(0, STEPS - 1), window=st.integers(6, 30))
def test_any_arrivals_give_the_same_batches_with_or_without_a_resume(
    seed: int, stop_after: int, window: int
) -> None:
    """And the ring is what the checkpoint says, no id is drawn that was not asked for, none is left over."""
    expected = [RULE.batch(step) for step in range(1, STEPS + 1)]
    feed = UnrulyFeed(seed, window=window)
    source = _source(feed)
    batches = _run(source, 1, stop_after)
    assert source.ring_contents() == list(RULE.ring(stop_after))
    assert source.ring_groups == len(RULE.ring(stop_after))
    again = UnrulyFeed(seed + 1, step=stop_after, window=window)
    resumed = _source(again, stop_after)
    batches += _run(resumed, stop_after + 1, STEPS)
    assert [_as_uses(batch) for batch in batches] == expected
    ring = {group_id for group_id, _, _ in RULE.ring(stop_after)}
    assert sorted(again.accepted) == sorted(ring | set(range(RULE.new_ids(stop_after), RULE.new_ids(STEPS))))
    assert resumed.ring_groups == len(RULE.ring(STEPS))


def test_pixels_are_those_of_the_ticket_at_every_use() -> None:
    """A held group stays what it was."""
    for batch in _run(_source(UnrulyFeed(3)), 1, STEPS):
        assert [int(group.images_NHWC[0, 0, 0, 0]) for group in batch.groups] == [
            group.group_id for group in batch.groups
        ]


def test_after_a_resume_the_whole_ring_comes_before_the_first_batch() -> None:
    """Each of its groups is received, and its slot freed, before training goes on."""
    feed = UnrulyFeed(1, step=9)
    _source(feed, 9).next_batch(10)
    assert {group_id for group_id, _, _ in RULE.ring(9)} <= set(feed.accepted)


def test_a_dead_letter_ends_the_run_with_its_reason() -> None:
    """No batch can do without it, so nothing is trained in its place."""
    source = _source(UnrulyFeed(2, dead={13: "black image"}))
    with pytest.raises(DeadLetterError, match="13 is dead: black image"):
        _run(source, 1, STEPS)


def test_a_stop_ends_the_wait() -> None:
    """As in arrival order."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(StopRequestedError):
        TicketOrderSource(UnrulyFeed(1), RULE, step=0, stop=stop).next_batch(1)
