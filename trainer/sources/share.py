"""Which part of a mixed run's batches comes from the pool: pure functions of the step, or of the id.

A batch has `share` x batch_groups groups of the pool as long as fewer than `until` groups were trained on,
repeats counted, and none afterwards; `until` = 0 is for ever.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

from trainer.composition import Composition
from trainer.config import Mode

Modes = Sequence[tuple[int, Mode]]
"""What a run's mode was: the first step of each, ascending, from step 1 on."""


class Share:
    """The rule in arrival order, where each step takes its part from either."""

    def __init__(self, *, batch_groups: int, share: float, until: int) -> None:
        self.batch_groups = batch_groups
        self._groups = round(share * batch_groups)
        self._last_step = -(-until // batch_groups) if until else None

    def pool_groups(self, step: int) -> int:
        """Of the batch of that step."""
        return self._groups if self._last_step is None or step <= self._last_step else 0

    def pool_groups_through(self, step: int) -> int:
        """Of the first `step` batches together."""
        return self._groups * (step if self._last_step is None else min(step, self._last_step))


class TicketShare:
    """The rule in ticket order, where the id alone says which source serves a group, at each of its uses: the
    one of the mode in which it came new. In mode mixed the first slots of every block are the pool's."""

    def __init__(
        self, composition: Composition, *, share: float, until: int, modes: Modes = ((1, "mixed"),)
    ) -> None:
        self._composition = composition
        slots = round(share * composition.new_groups)
        end = composition.new_ids(-(-until // composition.batch_groups)) if until else None
        spans: dict[int, int] = {}
        for first_step, mode in modes:
            first = composition.new_ids(first_step - 1)
            over = end is not None and first >= end
            spans = {known: pooled for known, pooled in spans.items() if known < first}
            spans[first] = {"online": 0, "offline": composition.new_groups, "mixed": 0 if over else slots}[
                mode
            ]
            if mode == "mixed" and end is not None and not over:
                spans[end] = 0
        self._firsts = sorted(spans)
        self._slots = [spans[first] for first in self._firsts]
        """Of each block, from the id of `_firsts` on, how many slots are the pool's."""

    def is_pools(self, group_id: int) -> bool:
        """Whether the pool serves that group."""
        span = bisect_right(self._firsts, group_id) - 1
        return self._composition.slot(group_id) < self._slots[span]

    @property
    def only_pools_from(self) -> float:
        """The id from which on no other source serves any; infinite where there is none."""
        return self._firsts[-1] if self._slots[-1] == self._composition.new_groups else math.inf

    def pool_ids_from(self, group_id: int) -> Iterator[int]:
        """The pool's ids from that one on, ascending."""
        if self._slots[-1]:
            return filter(self.is_pools, itertools.count(group_id))
        return filter(self.is_pools, range(group_id, self._firsts[-1]))

    def pool_ids_below(self, group_id: int, of: Callable[[int], bool] = lambda group_id: True) -> int:
        """How many ids below that one the pool serves, of those that `of` takes, which must depend on an id's
        slot alone."""
        lasts = [*self._firsts[1:], group_id]
        taken = [[slot for slot in range(slots) if of(slot)] for slots in self._slots]
        return sum(
            self._below(min(last, group_id), slots) - self._below(min(first, group_id), slots)
            for first, last, slots in zip(self._firsts, lasts, taken, strict=True)
        )

    def _below(self, group_id: int, slots: Sequence[int]) -> int:
        blocks, rest = divmod(group_id, self._composition.new_groups)
        return blocks * len(slots) + sum(slot < rest for slot in slots)
