"""The rule of ticket order: against a plain simulation that walks through time, and what it promises."""

import struct
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.composition import Composition, RankComposition
from trainer.permutation import Permutation


class Rule(NamedTuple):
    batch: int
    reuse: int
    ring: int
    gap: int
    seed: int

    def composition(self) -> Composition:
        return Composition(
            batch_groups=self.batch, reuse=self.reuse, ring_batches=self.ring, gap=self.gap, seed=self.seed
        )


class Block:
    """Groups that came new in one round; trained on, n a step, until its last round."""

    def __init__(self, number: int, last_round: int, groups: list[int]) -> None:
        self.number = number
        self.last_round = last_round
        self.groups = groups


def simulate(rule: Rule, rounds: int) -> list[list[int]]:
    """The batches of the first rounds, by walking through them with lists of ids."""
    share, ids = rule.batch // rule.reuse, iter(range(10**9))
    batches: list[list[int]] = []
    blocks = [Block(-age, rule.reuse - 1 - age, []) for age in range(rule.reuse)]
    for _ in range(rule.ring):
        batches.append([])
        for block in blocks:
            new = [next(ids) for _ in range(share)]
            block.groups += new
            batches[-1] += new
    for round_ in range(1, rounds):
        blocks = [block for block in blocks if block.last_round >= round_]
        for block in blocks:
            shuffle(rule, block, round_)
        new = [next(ids) for _ in range(rule.ring * share)]
        blocks.insert(0, Block(round_, round_ + rule.reuse - 1, new))
        for at in range(rule.ring):
            batches.append([i for block in blocks for i in block.groups[at * share : (at + 1) * share]])
    return batches


def shuffle(rule: Rule, block: Block, round_: int) -> None:
    steps, share = rule.ring - rule.gap, rule.batch // rule.reuse
    lengths = [steps if round_ % 2 == 1 else max(1, steps // 2)] + [steps] * rule.ring
    key = xxhash.xxh3_64_intdigest(struct.pack("<Qqq", rule.seed, block.number, round_))
    rest, mixed = block.groups, []
    for length in lengths:
        piece, rest = rest[: length * share], rest[length * share :]
        if not piece:
            continue
        start, moved = len(mixed), [-1] * len(piece)
        for slot in range(share):  # a group changes its step and keeps its slot
            order = Permutation(len(piece) // share, key, start + slot)
            for step in range(len(piece) // share):
                moved[step * share + slot] = piece[order[step] * share + slot]
        mixed += moved
    block.groups = mixed


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    reuse, share = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    ring = draw(st.integers(1, 7))
    gap = draw(st.integers(0, ring - 1))
    return Rule(reuse * share, reuse, ring, gap, draw(st.integers(0, 2**63 - 1)))


@settings(max_examples=150, deadline=None)
@given(rules())
def test_batches_ring_and_new_ids_are_those_of_a_plain_simulation(rule: Rule) -> None:
    """Asked in any order, since nothing is remembered; the ring is what comes again later."""
    rounds = 2 * rule.reuse + 2
    batches = simulate(rule, rounds)
    composition = rule.composition()
    uses: Counter[int] = Counter()
    last: dict[int, int] = {}
    known = (rounds - rule.reuse) * rule.ring  # beyond it the simulation does not tell what comes again
    for step, batch in enumerate(batches, start=1):
        uses.update(batch)
        last |= dict.fromkeys(batch, step)
        assert composition.batch(step) == tuple((i, uses[i]) for i in batch)
        assert composition.new_ids(step) == len(uses)
        if step <= known:
            again = {i for later in batches[step:] for i in later} & uses.keys()
            assert composition.ring(step) == tuple((i, uses[i], last[i]) for i in sorted(again))
    for step in (len(batches), 1, known):
        assert [i for i, _ in rule.composition().batch(step)] == batches[step - 1]


@settings(max_examples=150, deadline=None)
@given(rules())
def test_the_promises_of_ticket_order_hold(rule: Rule) -> None:
    """Exactly `reuse` uses beyond the first round, the gap kept, no group twice in a batch, ids ascending,
    the ring never over its size."""
    rounds = 2 * rule.reuse + 2
    composition = rule.composition()
    steps: dict[int, list[int]] = {}
    for step in range(1, rounds * rule.ring + 1):
        batch = composition.batch(step)
        ids = [i for i, _ in batch]
        assert len(set(ids)) == rule.batch
        new = [i for i, use in batch if use == 1]
        assert new == list(range(composition.new_ids(step - 1), composition.new_ids(step)))
        assert len(new) == (rule.batch if step <= rule.ring else rule.batch // rule.reuse)
        assert len(composition.ring(step)) <= rule.ring * rule.batch
        for i in ids:
            steps.setdefault(i, []).append(step)
    for step in range(1, rounds * rule.ring + 1):
        slots = Counter(composition.slot(i) for i, _ in composition.batch(step))
        assert slots == dict.fromkeys(range(rule.batch // rule.reuse), rule.reuse), "each slot once a block"
    first_round = rule.ring * rule.batch
    through = composition.new_ids((rounds - rule.reuse) * rule.ring)
    for i, trained in steps.items():
        assert all(after - before > rule.gap for before, after in pairwise(trained))
        assert len(trained) <= rule.reuse
        assert len(trained) == rule.reuse or i < first_round or i >= through


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(2, 6))
def test_ranks_share_every_batch_and_keep_their_groups(world: int, share: int, reuse: int, ring: int) -> None:
    """Whatever their number: the parts of a step are its batch, those of the ring the ring, and every rank
    has as many groups of each use, in the order of the whole."""
    whole = Rule(world * share * reuse, reuse, ring, 1, 11).composition()
    ranks = [RankComposition(whole, rank, world) for rank in range(world)]
    assert {(rank.batch_groups, rank.new_groups) for rank in ranks} == {(share * reuse, share)}
    for step in range(1, (reuse + 2) * ring + 1):
        batch, parts = whole.batch(step), [rank.batch(step) for rank in ranks]
        assert {len(part) for part in parts} == {share * reuse}
        for rank, part in zip(ranks, parts, strict=True):
            assert part == tuple(use for use in batch if rank.is_mine(use[0]))
            leaving = {i for i, _ in batch[-whole.new_groups :]}
            assert {i for i, _ in part[-share:]} == {i for i in leaving if rank.is_mine(i)}
            of_part, of_whole = (Counter(use for _, use in uses) for uses in (part, batch))
            assert {use: count * world for use, count in of_part.items()} == of_whole
        assert sorted(use for part in parts for use in part) == sorted(batch)
        assert sorted(held for rank in ranks for held in rank.ring(step)) == list(whole.ring(step))


def test_the_example_of_the_rule() -> None:
    """As the docstring tells it."""
    composition = Rule(batch=4, reuse=2, ring=2, gap=1, seed=7).composition()
    batches = [[i for i, _ in composition.batch(step)] for step in range(1, 7)]
    assert batches[:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [b[:2] for b in batches[2:]] == [[8, 9], [10, 11], [12, 13], [14, 15]]
    assert [sorted(b[2:]) for b in batches[2:]] == [[0, 1], [4, 5], [8, 9], [10, 11]]


def test_groups_meet_ever_other_groups_and_another_seed_mixes_otherwise() -> None:
    """A block is mixed as a whole: at its last use, a group's companions are from all over the block."""
    rule = Rule(batch=32, reuse=8, ring=16, gap=1, seed=1)
    composition, other = rule.composition(), rule._replace(seed=2).composition()
    oldest = [[i for i, _ in composition.batch(step)][-4:] for step in range(16 * 16 + 1, 17 * 16 + 1)]
    spans = [max(ids) - min(ids) for ids in oldest]
    assert sum(spans) / len(spans) > 0.4 * 64, "four numbers at random from 64 span 39 on average"
    assert [i for i, _ in other.batch(300)] != [i for i, _ in composition.batch(300)]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(batch=8, reuse=3, ring=4, gap=1, seed=0), "divides 8, got 3"),
        (Rule(batch=8, reuse=2, ring=4, gap=4, seed=0), "more than 4 batches, got 4"),
    ],
)
def test_what_no_rule_can_do_is_refused(rule: Rule, words: str) -> None:
    """`limits.check` tells people before."""
    with pytest.raises(ValueError, match=words):
        rule.composition()


def test_ranks_that_do_not_divide_the_slots_are_refused() -> None:
    """`limits.check` tells people before."""
    with pytest.raises(ValueError, match="divide 4, got 3"):
        RankComposition(Rule(batch=8, reuse=2, ring=4, gap=1, seed=0).composition(), 0, 3)
