"""What a run tells of itself as it goes: rows of metrics and strips of samples, to files and trackers."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from trainer.batch import Batch
from trainer.metrics import MetricsLog, Row
from trainer.run_folder import RunFolder
from trainer.samples import save_strips, strips_of
from trainer.trackers.config import LogConfig
from trainer.trackers.open import open_trackers
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

    def stall(self, row: Row) -> None:
        """A row without a loss, of a trainer that stands still: for the file alone."""
        self._metrics.append(row)

    def batch(self, batch: Batch) -> None:
        """A batch of which people are to see some groups; those of the batch before are replaced."""
        strips = strips_of(batch)
        save_strips(self._samples, strips)
        for tracker in self._trackers:
            tracker.strips(strips)

    def finished(self) -> None:
        """The run came to its last step, and all of it is logged."""
        for tracker in self._trackers:
            tracker.finished()


def open_journal(
    stack: ExitStack, config: LogConfig, folder: RunFolder, resolved: dict[str, Any], step: int
) -> Journal:
    """The journal of the run in `folder` from that step on, closed with the stack. Raises UserError."""
    metrics = stack.enter_context(closing(MetricsLog(folder.metrics, step)))
    return Journal(metrics, folder.samples, open_trackers(stack, config, folder.path, resolved, step))
