"""What a run tells of itself as it goes: rows of metrics and strips of samples, to files and trackers."""

from collections.abc import Sequence
from pathlib import Path

from trainer.batch import Batch
from trainer.metrics import MetricsLog, Row
from trainer.samples import save_strips, strips_of
from trainer.trackers.tracker import Tracker


class Journal:
    """metrics.jsonl and samples/ of a run folder, and whatever trackers the run file asks for."""

    def __init__(self, metrics: MetricsLog, samples: Path, trackers: Sequence[Tracker]) -> None:
        self._metrics = metrics
        self._samples = samples
        self._trackers = trackers

    def row(self, row: Row) -> None:
        """A logged step."""
        self._metrics.append(row)
        for tracker in self._trackers:
            tracker.row(row)

    def batch(self, batch: Batch) -> None:
        """A batch of which people are to see some groups; those of the batch before are replaced."""
        strips = strips_of(batch)
        save_strips(self._samples, strips)
        for tracker in self._trackers:
            tracker.strips(strips)
