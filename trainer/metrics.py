"""metrics.jsonl: one JSON object a logged step, and the meter that its rates come from.

While the trainer stands still there is a row now and then without a loss, whose `stall` names the reason.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monitoring.histogram import Histogram, HistogramCounts
from trainer.batch import Batch
from trainer.feed.feed import FeedStatus

Row = dict[str, Any]

USE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)
AGE_BOUNDS_SECONDS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class MetricsLog:
    """Appends rows; each line is whole or absent."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        """Rows after `resumed_step` are of weights that are gone, and leave."""
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= resumed_step]
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - kept open for the run

    def append(self, row: Row) -> None:
        """Writes one row and hands it to the system."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    """Whole lines only: a kill may have cut the last one."""
    if not path.exists():
        return []
    return [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


class Meter:
    """Rates over the steps since the last logged row, and totals over the run."""

    def __init__(
        self,
        *,
        groups_trained: int = 0,
        uses: int = 0,
        images_received: int = 0,
        wait_seconds: float = 0.0,
        train_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The arguments are the totals that a checkpoint brought."""
        self.groups_trained = groups_trained
        self.uses = uses
        self.wait_seconds = wait_seconds
        self.train_seconds = train_seconds
        self._received_before = images_received
        self.images_received = images_received
        self._clock = clock
        self.use_counts = Histogram(USE_BOUNDS)
        """Which use of its group each training of this process was: 1 is the first."""
        self.age_counts = Histogram(AGE_BOUNDS_SECONDS)
        """Seconds from a group's arrival, or its decoding, to each of its trainings."""
        self.restart()

    def restart(self) -> None:
        """Begins a new interval."""
        self._began = self._clock()
        self._interval_uses = self._interval_fresh = self._interval_steps = 0
        self._interval_wait = self._interval_train = 0.0
        self._interval_received = self.images_received
        self._paused = 0.0

    def pause(self, seconds: float) -> None:
        """Time that belongs to neither waiting nor training: evaluation, checkpoints."""
        self._paused += seconds

    def count(self, batch: Batch, wait_seconds: float, train_seconds: float) -> None:
        """One step was trained."""
        groups, now = len(batch.groups), self._clock()
        for group, use in zip(batch.groups, batch.uses, strict=True):
            self.use_counts.observe(use)
            self.age_counts.observe(now - group.arrived_seconds)
        self.uses += groups
        self.groups_trained += batch.fresh
        self.wait_seconds += wait_seconds
        self.train_seconds += train_seconds
        self._interval_steps += 1
        self._interval_uses += groups
        self._interval_fresh += batch.fresh
        self._interval_wait += wait_seconds
        self._interval_train += train_seconds

    def row(self, views: int, status: FeedStatus) -> Row:
        """The stream's part of a row."""
        self.images_received = self._received_before + status.groups_received * views
        elapsed = max(self._clock() - self._began, 1e-9)
        working = max(elapsed - self._paused, 1e-9)
        return {
            "images_received": self.images_received,
            "images_trained": self.uses * views,
            "images_per_second": self._interval_uses * views / working,
            "generated_per_second": (self.images_received - self._interval_received) / elapsed,
            "fresh_fraction": self._interval_fresh / max(1, self._interval_uses),
            "mean_uses": self.uses / max(1, self.groups_trained),
            "uses": _buckets(self.use_counts.counts()),
            "age_seconds": _buckets(self.age_counts.counts()),
            "wait_seconds": self.wait_seconds,
            "waiting_share": self._interval_wait / working,
            "step_seconds": self._interval_train / max(1, self._interval_steps),
            "workers": status.workers,
            "buffered_groups": status.buffered,
            "dead_letters": status.dead_letters,
            "issued_again": status.issued_again,
            "captions_cut": status.captions_cut,
            "refused": status.refused,
        }


def _buckets(counts: HistogramCounts) -> dict[str, int]:
    """How many observations of this process fell at or below each bound and above the one before it."""
    names = [*(f"{bound:g}" for bound in counts.bounds), "more"]
    before = (0, *counts.cumulative)
    return {
        name: upto - less
        for name, upto, less in zip(names, counts.cumulative, before[:-1], strict=True)
        if upto > less
    }
