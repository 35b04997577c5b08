"""m of l: decided by the ticket, without repetition, every choice as likely as any other."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from protocol.generation import GenerationSpec
from protocol.identity import caption_id
from trainer.captions import Captions
from trainer.plan import Plan
from trainer.pool.pool import open_pool
from trainer.pool.sampling import draw_order, replay, sample

CAPTIONS = ["a", "b", "c"]
PLAN = Plan(Captions(CAPTIONS), 0, GenerationSpec(views=2, size=16))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 30))
def test_an_order_holds_every_number_once_and_is_repeatable(seed: int, group_id: int, count: int) -> None:
    """Whatever the key."""
    order = draw_order(seed, group_id, count)
    assert sorted(order) == list(range(count))
    assert order == draw_order(seed, group_id, count)


def test_every_order_is_equally_likely() -> None:
    """Chi-square over the 60 ordered choices of 3 of 5, and over pairs of neighbouring groups."""
    groups = 30_000
    chosen = [tuple(draw_order(7, group_id, 5)[:3]) for group_id in range(groups)]
    for counted, kinds in ((chosen, 60), ([c[:1] + d[:1] for c, d in itertools.pairwise(chosen)], 25)):
        counts, expected = Counter(counted), len(counted) / kinds
        chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
        assert len(counts) == kinds
        # Mean kinds - 1, deviation sqrt(2 x (kinds - 1)): five of them are never reached by chance.
        assert chi_square < kinds - 1 + 5 * (2 * (kinds - 1)) ** 0.5


def test_the_order_stays_what_it_was() -> None:
    """A checkpoint of another version goes on with the same images."""
    assert draw_order(0, 0, 10) == [0, 1, 4, 8, 2, 6, 9, 5, 3, 7]


def test_visits_of_a_caption_see_different_images(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """From the first l alone, though the pool has more."""
    index = open_pool(write_pool(tmp_path, CAPTIONS, images=8), max_damaged=0).index
    select = sample(index, 0, 5)
    seen: dict[int, set[tuple[int, ...]]] = {}
    for group_id in range(60):
        ticket = PLAN.ticket(group_id)
        selection = select(ticket)
        numbers = tuple(index.image(row).image for row in selection.rows)
        assert sorted(numbers) == [0, 1, 2, 3, 4]
        assert {index.image(row).caption_id for row in selection.rows} == {ticket.caption_id}
        assert not selection.exact
        seen.setdefault(ticket.caption_id, set()).add(numbers[:2])
    assert all(len(choices) > 5 for choices in seen.values())
    assert seen.keys() == {caption_id(caption) for caption in CAPTIONS}


def test_a_replay_takes_the_views_of_the_ticket(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """And nothing where they were not recorded."""
    index = open_pool(write_pool(tmp_path, CAPTIONS, images=4), max_damaged=0).index
    select = replay(index)
    for group_id in range(9):
        ticket = PLAN.ticket(group_id)
        numbers = [index.image(row).image for row in select(ticket).rows]
        assert numbers == ([] if group_id >= 6 else [ticket.first_view, ticket.first_view + 1])
        assert select(ticket).exact
