"""One look at a running trainer, made of snapshots that other threads left or hand out under their locks."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from monitoring.histogram import Histogram, HistogramCounts
from trainer.checkpoint import Checkpoints, TrainedState
from trainer.config import TrainerConfig
from trainer.feed.feed import FeedStatus
from trainer.metrics import AGE_BOUNDS_SECONDS, USE_BOUNDS, Meter, Row
from trainer.monitor.board import Board
from trainer.stall_watch import Standstill

_NO_USES = Histogram(USE_BOUNDS).counts()
_NO_AGES = Histogram(AGE_BOUNDS_SECONDS).counts()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All that the two pages are made of."""

    run: str
    endpoint: str
    views: int
    max_steps: int
    first_step: int
    """Steps that the run had when this process took it over."""
    first_uses: int
    """Trainings of groups that it had then."""
    row: Row | None
    """Of the newest step of this process."""
    status: FeedStatus
    standstill: Standstill
    checkpoint_at: float | None
    """Unix time of the newest checkpoint."""
    disk_free_bytes: int
    disk_size_bytes: int
    use_counts: HistogramCounts = _NO_USES
    age_counts: HistogramCounts = _NO_AGES


class Stream(Protocol):
    """What this needs of the supply of groups."""

    @property
    def endpoint(self) -> str:
        """Where workers join; empty where none can."""

    def status(self) -> FeedStatus:
        """Counts as they are now, on any thread."""


class Stalls(Protocol):
    """What this needs of the stall watch."""

    @property
    def standstill(self) -> Standstill:
        """The newest, on any thread."""


@dataclass(frozen=True)
class Observer:
    """Makes readings, on any thread."""

    config: TrainerConfig
    resumed: TrainedState
    board: Board
    stream: Stream
    stalls: Stalls
    checkpoints: Checkpoints
    folder: Path
    """Of the run."""
    meter: Meter | None = None

    def read(self) -> Reading:
        """The trainer as it is now. Raises OSError when the run's disk can't be asked."""
        disk = shutil.disk_usage(self.folder)
        return Reading(
            run=self.config.run.name,
            endpoint=self.stream.endpoint,
            views=self.config.generation.views,
            max_steps=self.config.run.max_steps,
            first_step=self.resumed.step,
            first_uses=self.resumed.uses,
            row=self.board.row,
            status=self.stream.status(),
            standstill=self.stalls.standstill,
            checkpoint_at=self.checkpoints.written_at(),
            disk_free_bytes=disk.free,
            disk_size_bytes=disk.total,
            **self._histograms(),
        )

    def _histograms(self) -> dict[str, HistogramCounts]:
        if self.meter is None:
            return {}
        return {"use_counts": self.meter.use_counts.counts(), "age_counts": self.meter.age_counts.counts()}
