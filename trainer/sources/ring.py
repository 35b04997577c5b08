"""Groups already trained on that may be used again, within stated bounds: pure state, no threads."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from trainer.batch import DrawnGroup


@dataclass(slots=True)
class _Entry:
    group: DrawnGroup
    uses: int
    last_step: int


class Ring:
    """At most `capacity` groups, each used at most `max_reuse` times and not within `reuse_gap` steps."""

    def __init__(self, *, capacity: int, max_reuse: int, reuse_gap: int, seed: int) -> None:
        self._capacity = capacity
        self._max_reuse = max_reuse
        self._reuse_gap = reuse_gap
        self._seed = seed
        self._entries: dict[int, _Entry] = {}
        self.used_up = 0
        """Groups that left after `max_reuse` uses, where they could have more than one."""

    def __len__(self) -> int:
        return len(self._entries)

    def eligible(self, step: int) -> list[int]:
        """Ids that this step may use again, oldest first."""
        return [
            group_id for group_id, entry in self._entries.items() if step - entry.last_step > self._reuse_gap
        ]

    def draw(self, count: int, step: int) -> list[tuple[DrawnGroup, int]]:
        """`count` eligible groups at random without repetition, each with the number of this use.

        The choice depends only on the seed, the step and what the ring holds; nothing changes until `used`.
        Raises ValueError when fewer are eligible.
        """
        ids = self.eligible(step)
        if count > len(ids):
            raise ValueError(f"expected at most the {len(ids)} eligible groups, got {count}")
        chosen = np.random.default_rng([self._seed, step]).choice(len(ids), count, replace=False)
        return [(self._entries[ids[i]].group, self._entries[ids[i]].uses + 1) for i in sorted(chosen)]

    def used(self, groups: Collection[tuple[DrawnGroup, int]], step: int) -> None:
        """These groups, with the number of that use, were trained on at `step`; new ones enter."""
        for group, use in groups:
            if use >= self._max_reuse:
                self.used_up += self._entries.pop(group.group_id, None) is not None
            else:
                self._entries[group.group_id] = _Entry(group, use, step)
        excess = len(self._entries) - self._capacity
        if excess > 0:
            # dicts keep the order of first insertion, and sorting is stable: most used first, then oldest
            for group_id in sorted(self._entries, key=lambda i: -self._entries[i].uses)[:excess]:
                del self._entries[group_id]

    def contents(self) -> list[tuple[int, int, int]]:
        """(group_id, uses, last step) of every group held: what a checkpoint records."""
        return [(group_id, entry.uses, entry.last_step) for group_id, entry in self._entries.items()]
