"""Which part of a mixed run's batches comes from the pool: pure functions of the step, or of the id.

A batch has `share` x batch_groups groups of the pool as long as fewer than `until` groups were trained on,
repeats counted, and none afterwards; `until` = 0 is for ever.
"""

import itertools
from collections.abc import Callable, Iterator

from trainer.composition import Composition


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
    """The rule in ticket order, where the id alone says which source serves a group: the first slots of every
    block are the pool's. What was new in the steps of `until` stays the pool's at its later uses."""

    def __init__(self, composition: Composition, *, share: float, until: int) -> None:
        self._composition = composition
        self._slots = round(share * composition.new_groups)
        self._end = composition.new_ids(-(-until // composition.batch_groups)) if until else None

    def is_pools(self, group_id: int) -> bool:
        """Whether the pool serves that group."""
        within = self._end is None or group_id < self._end
        return within and self._composition.slot(group_id) < self._slots

    def pool_ids_from(self, group_id: int) -> Iterator[int]:
        """The pool's ids from that one on, ascending."""
        ids = itertools.count(group_id) if self._end is None else range(group_id, self._end)
        return filter(self.is_pools, ids)

    def pool_ids_below(self, group_id: int, of: Callable[[int], bool] = lambda group_id: True) -> int:
        """How many ids below that one the pool serves, of those that `of` takes, which must depend on an id's
        slot alone."""
        below = group_id if self._end is None else min(group_id, self._end)
        rounds, rest = divmod(below, self._composition.new_groups)
        slots = [slot for slot in range(self._slots) if of(slot)]
        return rounds * len(slots) + sum(slot < rest for slot in slots)
