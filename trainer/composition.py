"""Which groups make up the batch of a step in ticket order: a pure function of the step.

The rule, for batches of B groups, R uses a group (R divides B), and a ring of W batches:

- Time is cut into rounds of W steps, round 0 first; step 1 is the first step of round 0. n = B / R.
- Every step of round 0 trains on B new groups; every later step on n new ones. New ids are taken from 0
  upwards without a gap.
- The W x n groups that come new in one round are a block. In round k every step trains on n groups of each
  of R blocks: its own and those of the R - 1 rounds before. So a group has its i-th use i - 1 rounds after
  its first, and leaves after R.
- The W x B groups of round 0 fill R blocks at once, n to each at every step. They leave in turn, the last of
  them after one use and the first after R: from round 1 on every batch holds every age in equal shares.
- In its first round a block is in order of ids. Before each further round its order of the round before is
  cut into pieces and each piece is shuffled, keyed by run seed, block and round. A piece spans at most
  W - gap steps, so that a group comes back more than `gap` steps later; every other round begins with half
  a piece, so that the whole block is mixed. A shuffle moves groups between steps, not between the n slots
  that the block has in each, so a source that serves k of the slots serves k / n of every batch.
- A batch lists its blocks from the youngest, which is the new one, to the oldest, which leaves.

The ring never holds more than W x B groups. No batch needs to know of any other.

With several ranks each trains on the slots of every block whose number is its own, modulo the ranks. So a
group has all its uses on one rank, and what a step trains on does not depend on the ranks.

Example, B = 4, R = 2, W = 2, gap = 1, hence n = 2 and pieces of one step. Steps 1 and 2 train on 0 1 2 3 and
4 5 6 7, of which 0 1 4 5 stay; steps 3 and 4 on 8 9 with 0 1, and 10 11 with 4 5; steps 5 and 6 on 12 13 with
8 9, and 14 15 with 10 11.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

import xxhash

from trainer.permutation import Permutation

Use = tuple[int, int]
"""(group_id, use), 1 at a group's first training."""
Held = tuple[int, int, int]
"""(group_id, uses so far, step of the last one)."""


class Composition:
    """The batches of one run. Every method is a pure function of its arguments."""

    def __init__(self, *, batch_groups: int, reuse: int, ring_batches: int, gap: int, seed: int) -> None:
        """`reuse` trainings a group with more than `gap` steps between two of them."""
        if batch_groups % reuse:
            raise ValueError(f"expected a reuse that divides {batch_groups}, got {reuse}")
        if reuse > 1 and ring_batches <= gap:
            raise ValueError(f"expected a ring of more than {gap} batches, got {ring_batches}")
        self.batch_groups = batch_groups
        self.new_groups = batch_groups // reuse
        """That come new in every step after round 0, and that leave for good after every step."""
        self._reuse = reuse
        self._round_steps = ring_batches
        self._gap = gap
        self._seed = seed
        self._order = lru_cache(maxsize=2 * reuse + 2)(self._order_of_block)
        self._orders = lru_cache(maxsize=2)(self._orders_of_round)

    def batch(self, step: int) -> tuple[Use, ...]:
        """The groups of a step, from 1 on, each with the number of this use."""
        round_, at = divmod(step - 1, self._round_steps)
        slots = slice(at * self.new_groups, (at + 1) * self.new_groups)
        return tuple(
            (self._id(block, place), _use(block, round_))
            for block, order in self._orders(round_)
            for place in order[slots]
        )

    def new_ids(self, step: int) -> int:
        """How many groups the first `step` steps train on: the ids below that number."""
        round_, at = divmod(step, self._round_steps)
        if round_ == 0:
            return at * self.batch_groups
        later_steps = (round_ - 1) * self._round_steps + at
        return self._round_steps * self.batch_groups + later_steps * self.new_groups

    def slot(self, group_id: int) -> int:
        """Which of the `new_groups` slots of its block a group has, at each of its uses."""
        return group_id % self.new_groups

    def ring(self, step: int) -> tuple[Held, ...]:
        """Groups trained on in the first `step` steps that a later one trains on again, ascending: what must
        be at hand, beside new groups, for training to go on."""
        round_, at = divmod(step, self._round_steps)
        past = at * self.new_groups
        held: list[Held] = []
        for block, order in self._orders(round_):
            if _use(block, round_) > 1:
                due = set(order[past:])
                before = self._order(block, round_ - 1)
                held += [self._held(block, round_ - 1, i) for i, place in enumerate(before) if place in due]
            if block > round_ - self._reuse + 1:
                held += [self._held(block, round_, i) for i in range(past)]
        return tuple(sorted(held))

    def _held(self, block: int, round_: int, index: int) -> Held:
        step = round_ * self._round_steps + index // self.new_groups + 1
        return self._id(block, self._order(block, round_)[index]), _use(block, round_), step

    def _id(self, block: int, place: int) -> int:
        """Of the group that came at that place of its block."""
        if block > 0:
            return self.new_ids(block * self._round_steps) + place
        step, slot = divmod(place, self.new_groups)
        return step * self.batch_groups - block * self.new_groups + slot

    def _orders_of_round(self, round_: int) -> Sequence[tuple[int, Sequence[int]]]:
        """The blocks of a round, youngest first, each with its places in the order of their training.

        Round 0 has its own block, and R - 1 that are numbered below 0.
        """
        blocks = range(round_, round_ - self._reuse, -1)
        for block in blocks:
            for before in range(max(block, 0), round_):
                self._order(block, before)  # from the oldest on, since each builds on the one before it
        return [(block, self._order(block, round_)) for block in blocks]

    def _order_of_block(self, block: int, round_: int) -> Sequence[int]:
        size = self._round_steps * self.new_groups
        if round_ == max(block, 0):
            return range(size)
        before = self._order(block, round_ - 1)
        steps = self._round_steps - self._gap
        cut = steps if round_ % 2 else max(1, steps // 2)
        order: list[int] = []
        while len(order) < size:
            piece = before[len(order) : cut * self.new_groups]
            columns = [
                self._shuffled(piece[slot :: self.new_groups], block, round_, len(order) + slot)
                for slot in range(self.new_groups)
            ]
            order += [place for at_step in zip(*columns, strict=True) for place in at_step]
            cut += steps
        return order

    def _shuffled(self, column: Sequence[int], block: int, round_: int, start: int) -> Sequence[int]:
        """The places of one slot over the steps of a piece."""
        key = struct.pack("<Qqq", self._seed & (2**64 - 1), block, round_)
        shuffle = Permutation(len(column), xxhash.xxh3_64_intdigest(key), epoch=start)
        return [column[shuffle[i]] for i in range(len(column))]


class RankComposition:
    """The part of one rank in the batches of a `Composition`, whose `new_groups` the ranks must divide."""

    def __init__(self, whole: Composition, rank: int, world: int) -> None:
        if whole.new_groups % world:
            raise ValueError(f"expected ranks that divide {whole.new_groups}, got {world}")
        self._whole = whole
        self._rank = rank
        self._world = world
        self.batch_groups = whole.batch_groups // world
        """Of a step, on this rank."""
        self.new_groups = whole.new_groups // world
        """Of these, that leave for good after every step, the last of a batch."""

    def is_mine(self, group_id: int) -> bool:
        """Whether this rank trains on it."""
        return self._whole.slot(group_id) % self._world == self._rank

    def batch(self, step: int) -> tuple[Use, ...]:
        """This rank's groups of a step, in the order of the whole batch, each with the number of this use."""
        return tuple(use for use in self._whole.batch(step) if self.is_mine(use[0]))

    def ring(self, step: int) -> tuple[Held, ...]:
        """This rank's groups of the whole ring after so many steps."""
        return tuple(held for held in self._whole.ring(step) if self.is_mine(held[0]))


def _use(block: int, round_: int) -> int:
    return round_ - max(block, 0) + 1
