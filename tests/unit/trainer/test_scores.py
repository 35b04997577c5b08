"""evaluation.json: one row a contestant, kept over a resume, and a stop is heard in the middle of it."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainer.errors import StopRequestedError
from trainer.scores import Scores


class CountingEvaluation:
    """Scores an encoder by the sum of its features of ones."""

    def evaluate(self, encode: Callable[[Tensor], Tensor]) -> dict[str, float]:
        return {"recall_at_10": float(encode(torch.ones(2, 3, 4, 4)).sum())}

    def baselines(self) -> dict[str, dict[str, float]]:
        return {"pixels": {"recall_at_10": 0.5}}

    def gallery_batches(self) -> list[Tensor]:
        return [torch.ones(2, 3, 4, 4)]


class DoublingLearner:
    """Its features are twice the mean colour."""

    encoder = torch.nn.Identity()

    def encode(self, images_NCHW: Tensor) -> Tensor:
        return 2 * images_NCHW.mean(dim=(2, 3))


def _scores(path: Path, stop: threading.Event) -> Scores:
    return Scores(CountingEvaluation(), DoublingLearner(), path, stop)  # type: ignore[arg-type]  # stand-ins


def test_rows_are_kept_over_a_resume(tmp_path: Path) -> None:
    """The untrained row is judged once; the trained one is replaced by later steps."""
    path = tmp_path / "evaluation.json"
    scores = _scores(path, threading.Event())
    scores.judge_untrained()
    scores.judge_trained(10)
    again = _scores(path, threading.Event())
    assert again.judge_trained(20) == {"recall_at_10": 12.0, "recall_at_10_untrained": 12.0}
    table = json.loads(path.read_text())
    assert set(table) == {"untrained", "pixels", "trained"}
    assert table["trained"] == {"recall_at_10": 12.0, "step": 20}
    assert table["pixels"] == {"recall_at_10": 0.5}


def test_a_stop_is_heard_while_evaluating(tmp_path: Path) -> None:
    """An evaluation takes seconds; Ctrl-C must not wait for its end, and nothing half-judged is written."""
    stop = threading.Event()
    scores = _scores(tmp_path / "evaluation.json", stop)
    stop.set()
    with pytest.raises(StopRequestedError):
        scores.judge_trained(10)
    assert not (tmp_path / "evaluation.json").exists()


def test_no_evaluation_is_asked_for(tmp_path: Path) -> None:
    """An empty list of sets judges nothing and writes nothing."""
    scores = Scores(None, DoublingLearner(), tmp_path / "e.json", threading.Event())  # type: ignore[arg-type]  # stand-in
    scores.judge_untrained()
    assert scores.judge_trained(5) == {}
    assert not (tmp_path / "e.json").exists()
