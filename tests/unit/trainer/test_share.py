"""Which part of a batch the pool has: against counting it out."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import UserError
from trainer.composition import Composition
from trainer.config import Mode, PoolConfig, RunConfig, StreamConfig, TrainConfig, TrainerConfig
from trainer.limits import check
from trainer.sources.share import Share, TicketShare


@given(st.integers(2, 12), st.integers(0, 12), st.integers(0, 100), st.integers(0, 20))
def test_the_part_of_all_steps_is_the_sum_of_their_parts(
    batch_groups: int, part: int, until: int, steps: int
) -> None:
    """As long as fewer than `until` groups were trained on before a step, it has its part."""
    part = min(part, batch_groups)
    share = Share(batch_groups=batch_groups, share=part / batch_groups, until=until)
    expected = [part if not until or (step - 1) * batch_groups < until else 0 for step in range(1, steps + 1)]
    assert [share.pool_groups(step) for step in range(1, steps + 1)] == expected
    assert share.pool_groups_through(steps) == sum(expected)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 4), st.integers(0, 60), st.integers(2, 5))
def test_in_ticket_order_every_batch_has_the_same_part_of_either(
    reuse: int, slots: int, part: int, until: int, ring: int
) -> None:
    """At each use as well, and exactly the steps of `until` bring new groups of the pool."""
    part = min(part, slots)
    rule = Composition(batch_groups=reuse * slots, reuse=reuse, ring_batches=ring, gap=1, seed=3)
    endless = TicketShare(rule, share=part / slots, until=0)
    ending = TicketShare(rule, share=part / slots, until=until)
    for step in range(1, 5 * ring):
        batch = rule.batch(step)
        assert sum(endless.is_pools(group_id) for group_id, _ in batch) == part * reuse
        new = [group_id for group_id, use in batch if use == 1]
        pooled = sum(ending.is_pools(group_id) for group_id in new)
        assert pooled == (len(new) * part // slots if not until or (step - 1) * reuse * slots < until else 0)
    for low in range(40):
        assert ending.pool_ids_below(low) == sum(map(ending.is_pools, range(low)))
        odd = [i for i in range(low) if rule.slot(i) % 2 and ending.is_pools(i)]
        assert ending.pool_ids_below(low, lambda i: rule.slot(i) % 2 == 1) == len(odd)
    if part and until:
        assert list(ending.pool_ids_from(7)) == [i for i in range(7, 1000) if ending.is_pools(i)]


def test_after_switches_a_group_stays_with_the_source_it_came_from() -> None:
    """Counted out from the step at which each id is new."""
    rule = Composition(batch_groups=8, reuse=2, ring_batches=3, gap=1, seed=3)
    modes: list[tuple[int, Mode]] = [
        (1, "mixed"),
        (3, "online"),
        (5, "offline"),
        (8, "mixed"),
        (11, "offline"),
    ]
    share = TicketShare(rule, share=0.25, until=72, modes=modes)
    expected: dict[int, bool] = {}
    for step in range(1, 16):
        mode = [mode for first, mode in modes if first <= step][-1]
        for place, group_id in enumerate(range(rule.new_ids(step - 1), rule.new_ids(step))):
            in_part = place % 4 < 1 and (step - 1) * 8 < 72
            expected[group_id] = {"online": False, "offline": True, "mixed": in_part}[mode]
    assert {group_id: share.is_pools(group_id) for group_id in expected} == expected
    for low in expected:
        assert share.pool_ids_below(low) == sum(expected[group_id] for group_id in range(low))
    assert share.only_pools_from == rule.new_ids(10)
    ids = itertools.takewhile(lambda group_id: group_id <= max(expected), share.pool_ids_from(5))
    assert list(ids) == [group_id for group_id in sorted(expected) if group_id >= 5 and expected[group_id]]
    ended = TicketShare(rule, share=0.25, until=0, modes=[(1, "offline"), (4, "online")])
    assert list(ended.pool_ids_from(0)) == list(range(rule.new_ids(3)))
    assert ended.only_pools_from == math.inf


def _mixed(share: float, until: int = 0, order: str = "arrival", max_reuse: int = 1) -> TrainerConfig:
    return TrainerConfig(
        run=RunConfig(mode="mixed"),
        stream=StreamConfig(order=order, max_reuse=max_reuse),  # type: ignore[arg-type]  # one of the two
        train=TrainConfig(batch_groups=8),
        pool=PoolConfig(dir="p", share=share, until=until),
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (_mixed(0.3), "0.3 x 8 = 2.4"),
        (_mixed(0.01), "0.01 x 8 = 0.08"),
        (_mixed(0.25, order="ticket", max_reuse=4), "stream.max_reuse = share x 2 .* got 0.25 x 2 = 0.5"),
        (_mixed(1.0), "1 for ever"),
    ],
)
def test_a_share_that_no_batch_can_have_is_refused(config: TrainerConfig, words: str) -> None:
    """With the numbers."""
    with pytest.raises(UserError, match=words):
        check(config)


@pytest.mark.parametrize("config", [_mixed(0.25), _mixed(1.0, until=5), _mixed(0.5, 0, "ticket", 4)])
def test_a_share_that_every_batch_can_have_is_taken(config: TrainerConfig) -> None:
    """Also all of it, where it ends."""
    check(config)
