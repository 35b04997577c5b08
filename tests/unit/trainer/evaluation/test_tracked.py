"""Scores of an evaluation in the trackers of its run."""

import fcntl
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from trainer.evaluation.result import Found, Result
from trainer.evaluation.tracked import curves_of, track

FOUND = Found(
    encoder="runs/r/encoder",
    encoder_digest="e",
    data="flowers",
    data_digest="d",
    pictures={"test": 3},
    classes=2,
    results=[
        Result(kind="knn", scores={"accuracy": 0.5, "worst_class": 0.25}),
        Result(kind="linear", variant="clean", settings={"norm": "batch_norm"}, scores={"accuracy": 0.75}),
    ],
)
CURVES = {
    "evaluation/flowers/knn/accuracy": 0.5,
    "evaluation/flowers/knn/worst_class": 0.25,
    "evaluation/flowers/linear_batch_norm_clean/accuracy": 0.75,
}


@pytest.fixture(name="run")
def finished_run(tmp_path: Path) -> Path:
    """Of 30 steps, watched by TensorBoard; it went on and its newest checkpoint is of step 40."""
    (tmp_path / "run.json").write_text(json.dumps({"log": {"tensorboard": True, "wandb": ""}}))
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 30}))
    (tmp_path / "checkpoints" / "step-000000040").mkdir(parents=True)
    (tmp_path / "tensorboard").mkdir()
    return tmp_path


def points_of(folder: Path) -> list[dict[str, tuple[int, float]]]:
    """(step, value) by curve, of each event file, whose records are length, checksum, event, checksum."""
    files = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        files.append({})
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event: Any = Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4
            assert event.session_log.status == 0, "a start would take points of the training back"
            files[-1] |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
    return files


def test_each_score_is_a_curve_of_its_set_and_kind() -> None:
    """With norm and variant of a probe in its name."""
    assert curves_of(FOUND) == CURVES


def test_scores_are_points_at_the_step_of_the_encoder(run: Path) -> None:
    """In the folder that holds the curves of training; a second evaluation adds to what the first wrote."""
    assert track(FOUND, run) == []
    assert track(FOUND, run) == []
    assert points_of(run / "tensorboard") == [{name: (30, value) for name, value in CURVES.items()}] * 2


def test_a_run_without_trackers_gets_none(run: Path) -> None:
    """Neither by its run file nor by what its folder holds."""
    (run / "run.json").write_text(json.dumps({"log": {"tensorboard": False, "wandb": ""}}))
    assert track(FOUND, run) == []
    assert list((run / "tensorboard").iterdir()) == []
    (run / "run.json").write_text(json.dumps({"log": {"tensorboard": True, "wandb": "project"}}))
    (run / "tensorboard").rmdir()
    assert track(FOUND, run) == []
    assert not (run / "tensorboard").exists()
    assert not (run / "wandb_id").exists()


def test_weights_and_biases_gets_them_in_the_run_of_that_id(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in for its package; where it fails, TensorBoard has them and the reason is told."""
    logged: list[Any] = []

    class Begun:
        def log(self, values: dict[str, float]) -> None:
            logged.append(values)

        def define_metric(self, name: str, step_metric: str | None = None) -> None: ...

        def finish(self) -> None: ...

    def init(**words: Any) -> Begun:
        if words["id"] == "gone":
            raise module.Error("no such run")
        logged.append((words["id"], words["resume"]))
        return Begun()

    module: Any = ModuleType("wandb")
    module.init, module.Error, module.Image = init, type("Error", (Exception,), {}), None
    monkeypatch.setitem(sys.modules, "wandb", module)
    (run / "run.json").write_text(json.dumps({"log": {"tensorboard": True, "wandb": "project"}}))
    (run / "wandb_id").write_text("abc\n")
    assert track(FOUND, run) == []
    assert logged == [("abc", "must"), {"step": 30, **CURVES}]
    (run / "wandb_id").write_text("gone\n")
    [reason] = track(FOUND, run)
    assert "Weights & Biases" in reason
    assert "no such run" in reason
    assert len(points_of(run / "tensorboard")) == 2


def test_what_a_trainer_is_writing_is_left_alone(run: Path) -> None:
    """And so is a run whose encoder is of an unknown step."""
    with open(run / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [reason] = track(FOUND, run)
    assert "run is in use" in reason
    (run / "summary.json").unlink()
    [reason] = track(FOUND, run)
    assert "step is not known" in reason
    assert list((run / "tensorboard").iterdir()) == []
