"""Counts of observations by size, filled by one thread and read by another."""

import threading
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class HistogramCounts:
    """A histogram at one moment."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets but the last, which has none."""
    cumulative: tuple[int, ...]
    """How many observations were at most as large as each bound; the last is how many there were."""
    sum: float
    """Of all observations."""


class Histogram:
    """Buckets with fixed, rising upper bounds, each including its bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one observation."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def counts(self) -> HistogramCounts:
        """All observations so far."""
        with self._lock:
            return HistogramCounts(self._bounds, tuple(accumulate(self._counts)), self._sum)
