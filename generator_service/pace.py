"""How fast the compute thread is, and how long it has been at what it does. Pure: told the time."""

from collections import deque

RECENT_BATCHES = 64


class Pace:
    """Wall times of recent static batches."""

    def __init__(self, first_seconds: float) -> None:
        """`first_seconds` is the batch time of the engine's warm-up."""
        self._started_at: float | None = None
        self._under_way = 0
        self.begin_anew(first_seconds, 0.0)

    def begin_anew(self, first_seconds: float, now: float) -> None:
        """Another engine: what is under way counts from now on."""
        self._recent = deque([first_seconds], maxlen=RECENT_BATCHES)
        self.p95_seconds = first_seconds
        """The 95th percentile (nearest rank) of the recent batches."""
        if self._started_at is not None:
            self._started_at = now

    @property
    def drawing(self) -> bool:
        """Whether a batch is under way."""
        return self._started_at is not None

    def start(self, now: float) -> None:
        """A batch was handed to the compute thread. Its time counts from the end of the one before it."""
        self._under_way += 1
        if self._started_at is None:
            self._started_at = now

    def finish(self, now: float) -> None:
        """The one that was handed over first came back."""
        if self._started_at is not None:
            self._recent.append(now - self._started_at)
            ordered = sorted(self._recent)
            self.p95_seconds = ordered[-(-95 * len(ordered) // 100) - 1]
            self._under_way -= 1
        self._started_at = now if self._under_way else None

    def idle_seconds(self, now: float) -> float:
        """Since the compute thread last finished a batch or was without work."""
        return 0.0 if self._started_at is None else now - self._started_at

    def left_seconds(self, now: float) -> float:
        """How much longer the batches under way should take; 0 when there is none."""
        if self._started_at is None:
            return 0.0
        of_first = max(0.0, self.p95_seconds - (now - self._started_at))
        return of_first + (self._under_way - 1) * self.p95_seconds
