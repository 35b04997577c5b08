"""Tickets are a pure function of the plan and the id."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.generation import GenerationSpec
from protocol.identity import caption_id, view_seed
from trainer.captions import Captions
from trainer.done import Deal, DoneIds
from trainer.permutation import Permutation
from trainer.plan import Plan

TEXTS = [f"caption {i}" for i in range(7)]


def _plan(seed: int = 3, guidance: tuple[float, ...] = (2.0,)) -> Plan:
    return Plan(Captions(TEXTS), seed, GenerationSpec(views=4, guidance=guidance))


@given(st.integers(1, 400), st.integers(0, 2**64 - 1), st.integers(0, 10))
def test_permutation_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    """Every index is hit exactly once."""
    permutation = Permutation(n, seed, epoch)
    assert sorted(permutation[i] for i in range(n)) == list(range(n))


def test_permutation_depends_on_seed_and_epoch() -> None:
    """Different keys, different orders; and indices outside are errors."""
    orders = {
        tuple(Permutation(50, seed, epoch)[i] for i in range(50)) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9
    with pytest.raises(IndexError):
        Permutation(5, 0, 0)[5]


def test_every_epoch_visits_every_caption_once() -> None:
    """Ids count through epochs; the order differs between them."""
    plan = _plan()
    first = [plan.ticket(i).caption for i in range(7)]
    second = [plan.ticket(i).caption for i in range(7, 14)]
    assert sorted(first) == sorted(second) == sorted(TEXTS)
    assert first != second


def test_views_are_numbered_through_all_visits_and_no_seed_repeats() -> None:
    """The third visit to a caption draws views 8 to 11, from seeds of their own."""
    plan = _plan()
    tickets = [plan.ticket(i) for i in range(21)]
    for ticket in tickets:
        assert ticket.first_view == 4 * (ticket.group_id // 7)
        assert ticket.caption_id == caption_id(ticket.caption)
        assert ticket.seeds == tuple(view_seed(3, ticket.caption_id, ticket.first_view + i) for i in range(4))
    assert max(Counter(seed for ticket in tickets for seed in ticket.seeds).values()) == 1


def test_guidance_is_drawn_from_the_list_a_group() -> None:
    """Every scale of the list comes up, always the same for one id."""
    plan = _plan(guidance=(1.0, 2.0, 4.0))
    drawn = [plan.ticket(i).guidance for i in range(60)]
    assert {scales[0] for scales in drawn} == {1.0, 2.0, 4.0}
    assert all(len(set(scales)) == 1 and len(scales) == 4 for scales in drawn)
    assert drawn == [_plan(guidance=(1.0, 2.0, 4.0)).ticket(i).guidance for i in range(60)]


def test_the_digest_names_captions_seed_and_spec() -> None:
    """Anything that changes a pixel or an order changes it."""
    digests = {
        _plan().digest,
        _plan(seed=4).digest,
        _plan(guidance=(3.0,)).digest,
        Plan(Captions(TEXTS[:-1]), 3, GenerationSpec(views=4)).digest,
    }
    assert len(digests) == 4
    assert _plan().digest == _plan().digest


@given(st.lists(st.integers(0, 60)))
def test_done_ids_are_a_set_with_a_watermark(ids: list[int]) -> None:
    """Against a plain set."""
    done = DoneIds()
    for group_id in ids:
        done.add(group_id)
    assert {i for i in range(70) if i in done} == set(ids)
    assert len(done) == len(set(ids))
    assert all(i in set(ids) for i in range(done.low))
    assert done.low not in done
    again = DoneIds(done.low, done.above)
    assert (again.low, again.above) == (done.low, done.above)


@given(st.sets(st.integers(0, 40)), st.integers(1, 5))
def test_undone_ids_are_dealt_round_robin(done_ids: set[int], world: int) -> None:
    """The i-th undone id belongs to rank i % world, whatever was done before."""
    done = DoneIds(0, sorted(done_ids))
    undone = [i for i in range(100) if i not in done_ids]
    for rank in range(world):
        deal = Deal(done, rank, world)
        mine = undone[rank::world]
        assert [group_id for group_id, _ in zip(deal, mine, strict=False)] == mine
        assert all(deal.is_mine(i) == (i in mine) for i in range(100))
