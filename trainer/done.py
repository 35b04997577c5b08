"""Which group ids are done: a low watermark and the few above it. Also deals the rest to ranks."""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence


class DoneIds:
    """Every id below `low` is done, and those in `above`. Trained groups and dead letters both count."""

    def __init__(self, low: int = 0, above: Sequence[int] = ()) -> None:
        self.low = low
        self._above = sorted(above)
        self._settle()

    @property
    def above(self) -> Sequence[int]:
        """Done ids beyond the watermark, ascending."""
        return tuple(self._above)

    def add(self, group_id: int) -> None:
        """Marks one id. Marking an id twice does nothing."""
        if group_id not in self:
            insort(self._above, group_id)
            self._settle()

    def __contains__(self, group_id: int) -> bool:
        at = bisect_left(self._above, group_id)
        return group_id < self.low or (at < len(self._above) and self._above[at] == group_id)

    def __len__(self) -> int:
        return self.low + len(self._above)

    def copy(self) -> "DoneIds":
        """An independent copy."""
        return DoneIds(self.low, self._above)

    def _settle(self) -> None:
        taken = 0
        while taken < len(self._above) and self._above[taken] == self.low:
            taken += 1
            self.low += 1
        del self._above[:taken]


class Deal:
    """The undone ids in ascending order, dealt round robin: the i-th belongs to rank `i % world`.

    Fixed at the start of a session; ids done later don't change it.
    """

    def __init__(
        self,
        done: DoneIds,
        rank: int = 0,
        world: int = 1,
        *,
        elsewhere: Callable[[int], bool] = lambda group_id: False,
    ) -> None:
        """`elsewhere`: ids that nobody is dealt here, since another source serves them."""
        if not 0 <= rank < world:
            raise ValueError(f"expected 0 <= rank < world, got rank {rank} of {world}")
        self._done = done.copy()
        self._elsewhere = elsewhere
        self._above = self._done.above
        self._rank = rank
        self._world = world

    def is_mine(self, group_id: int) -> bool:
        """Whether this rank trains on that id."""
        if group_id in self._done or self._elsewhere(group_id):
            return False
        return self._index(group_id) % self._world == self._rank

    def place(self, group_id: int) -> int:
        """How many of this rank's ids come before one of its ids, those served elsewhere included."""
        return self._index(group_id) // self._world

    def _index(self, group_id: int) -> int:
        return group_id - self._done.low - bisect_left(self._above, group_id)

    def __iter__(self) -> Iterator[int]:
        group_id = self._done.low
        while True:
            if self.is_mine(group_id):
                yield group_id
            group_id += 1
