"""The benchmark of steps, small."""

import json
from pathlib import Path

import pytest

from benchmarks.step import main


@pytest.mark.timeout(300)
def test_shares_add_up_and_larger_batches_take_longer(tmp_path: Path) -> None:
    """Learning, augmentation and the rest are all of the loop's time; the exit code is the target's."""
    out = tmp_path / "step.json"
    code = main(["--steps", "60", "--batches", "2,32", "--out", str(out)])
    result = json.loads(out.read_text())
    shares = result["shares"]
    assert shares["learning"] + shares["augmentation"] + shares["rest"] == pytest.approx(1)
    assert all(0 < shares[name] < 1 for name in ("learning", "augmentation", "rest"))
    assert [row["images"] for row in result["batches"]] == [8, 128]
    small, large = result["batches"]
    assert 0 < small["step_seconds"] < large["step_seconds"]
    assert small["peak_bytes"] > 50_000_000
    assert code == (0 if result["share_of_learning_without_augmentation"] >= 0.9 else 1)


def test_a_batch_alone_is_measured_as_the_run_file_has_it(tmp_path: Path) -> None:
    """Without a training under the profiler, at the run file's own sizes, in as few steps as one asks for."""
    out = tmp_path / "step.json"
    words = ["--steps", "0", "--batches", "3", "--warm-up", "0", "--timed", "1", "--out", str(out)]
    assert main([*words, "--generation.views", "5"]) == 0
    result = json.loads(out.read_text())
    assert "shares" not in result
    [row] = result["batches"]
    assert row["images"] == 15
    assert row["step_seconds"] > 0
