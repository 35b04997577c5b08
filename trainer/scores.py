"""evaluation.json: the encoder beside its baselines, all judged by the same evaluation."""

import json
import threading
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.errors import StopRequestedError
from trainer.evaluation.evaluate import Evaluation
from trainer.learner import Learner
from trainer.run_folder import write_json


class Scores:
    """Judges the learner's encoder and keeps the table of what was found."""

    def __init__(
        self, evaluation: Evaluation | None, learner: Learner, path: Path, stop: threading.Event
    ) -> None:
        """`evaluation` is None where the run file asks for none. An existing table is continued."""
        self._evaluation = evaluation
        self._learner = learner
        self._path = path
        self._stop = stop
        self.table: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def judge_untrained(self) -> None:
        """Fills the rows that need no training: the encoder as it is now, raw pixels, colour histogram."""
        if self._evaluation is not None:
            self.table = {"untrained": self._judge(), **self._evaluation.baselines()}
            write_json(self._path, self.table)

    def judge_trained(self, step: int) -> dict[str, float]:
        """Judges the encoder after `step` steps; beside each score stands the untrained encoder's.

        An empty map where the run file asks for no evaluation.
        """
        if self._evaluation is None:
            return {}
        scores = self._judge()
        self.table["trained"] = {**scores, "step": step}
        write_json(self._path, self.table)
        untrained = self.table.get("untrained", {})
        return scores | {f"{name}_untrained": value for name, value in untrained.items()}

    def _judge(self) -> dict[str, float]:
        assert self._evaluation is not None, "callers have looked"
        return self._evaluation.evaluate(self._encode)

    def _encode(self, images_NCHW: Tensor) -> Tensor:
        if self._stop.is_set():
            raise StopRequestedError("asked to stop while evaluating")
        return self._learner.encode(images_NCHW)
