"""What a run asks of a tracker."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from trainer.metrics import Row
from trainer.samples import Strip


class Tracker(Protocol):
    """Takes what is logged, in the order of steps."""

    def row(self, row: Row) -> None:
        """A row of metrics.jsonl."""

    def strips(self, strips: Sequence[Strip]) -> None:
        """Sample groups of one step."""

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """What the encoder of that step was judged by after the run, by the names of curves."""

    def finished(self) -> None:
        """The run came to its last step."""

    def close(self) -> None:
        """Sends what is left."""
