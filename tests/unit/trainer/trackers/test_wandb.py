"""Weights & Biases: what its package is told, by a stand-in that notes it, and what the package writes."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from protocol.errors import UserError
from trainer.samples import Strip
from trainer.trackers.wandb import WandbTracker


class Run:
    """Of the stand-in."""

    def __init__(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.axes: list[tuple[str, str | None]] = []
        self.ended = False

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.axes.append((name, step_metric))

    def finish(self) -> None:
        self.ended = True


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of every run that was begun, with the run itself."""
    found: list[dict[str, Any]] = []
    module: Any = ModuleType("wandb")

    def init(**words: Any) -> Run:
        found.append({**words, "run": Run()})
        run: Run = found[-1]["run"]
        return run

    module.init, module.Error = init, type("Error", (Exception,), {})
    module.Image = lambda image, caption: ("image", image.shape, caption)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def test_rows_and_samples_arrive_under_their_step(tmp_path: Path, begun: list[dict[str, Any]]) -> None:
    """Curves have the run's own step for an axis."""
    tracker = WandbTracker("project", tmp_path / ".", {"run": {"seed": 3}})
    tracker.row({"step": 10, "time": 1.0, "loss": 2.0})
    strip = Strip(group_id=1, caption="a", uses=1, step=10, image_HWC=np.zeros((2, 4, 3), np.uint8))
    tracker.strips([strip])
    tracker.close()
    run = begun[0]["run"]
    assert run.logged == [
        {"step": 10, "train/loss": 2.0},
        {"step": 10, "samples": [("image", (2, 4, 3), "a")]},
    ]
    assert ("*", "step") in run.axes
    assert run.ended
    assert begun[0]["config"] == {"run": {"seed": 3}}


def test_a_resumed_run_goes_on_under_its_id(tmp_path: Path, begun: list[dict[str, Any]]) -> None:
    """The folder keeps the id; another folder has another."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in ("a", "a", "b"):
        WandbTracker("project", tmp_path / folder, {}).close()
    ids = [words["id"] for words in begun]
    assert ids[0] == ids[1] != ids[2]
    assert all(words["resume"] == "allow" for words in begun)


def test_scores_after_the_run_need_the_run_that_its_folder_names(
    tmp_path: Path, begun: list[dict[str, Any]]
) -> None:
    """One that Weights & Biases no longer has is not begun anew."""
    WandbTracker("project", tmp_path, {}).close()
    tracker = WandbTracker("project", tmp_path, {}, resume="must")
    tracker.scores(30, {"evaluation/set/knn/accuracy": 0.5})
    tracker.close()
    assert begun[1]["id"] == begun[0]["id"]
    assert begun[1]["resume"] == "must"
    assert begun[1]["run"].logged == [{"step": 30, "evaluation/set/knn/accuracy": 0.5}]


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra to install."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'streamrep\[wandb\]'"):
        WandbTracker("project", tmp_path, {})


TRACKED = """
import sys
from pathlib import Path
import numpy as np
from trainer.samples import Strip
from trainer.trackers.wandb import WandbTracker
tracker = WandbTracker("project", Path(sys.argv[1]), {"run": {"seed": 31337}})
tracker.row({"step": 10, "time": 1.0, "loss": 2.0})
pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
tracker.strips([Strip(group_id=1, caption="a red dog", uses=1, step=10, image_HWC=pixels)])
tracker.scores(30, {"evaluation/set/knn/accuracy": 0.5})
tracker.close()
"""


def test_the_package_itself_keeps_curves_pictures_and_the_run_file(tmp_path: Path, repository: Path) -> None:
    """Without an account, in the folder that `wandb sync` sends: wandb's own, in a process of its own."""
    pytest.importorskip("wandb", reason="an extra")
    subprocess.run(
        [sys.executable, "-c", TRACKED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(repository), "WANDB_MODE": "offline", "WANDB_SILENT": "true"},
        check=True,
        timeout=60,
    )
    [kept] = tmp_path.glob("wandb/offline-run-*")
    [record] = kept.glob("run-*.wandb")
    assert record.name == f"run-{(tmp_path / 'wandb_id').read_text().strip()}.wandb"
    told = record.read_bytes()
    for part in (b"train/loss", b"evaluation/set/knn/accuracy", b"31337", b"a red dog", b"project"):
        assert part in told
    [picture] = kept.glob("files/media/images/*.png")
    assert np.array_equal(np.asarray(Image.open(picture)).reshape(-1), np.arange(24, dtype=np.uint8))
