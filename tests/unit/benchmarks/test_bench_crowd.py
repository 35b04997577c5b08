"""The benchmarks of the wire, small: emulated workers, and one with keys."""

import json
from pathlib import Path

import pytest

from benchmarks import wire
from benchmarks.crowd import main


@pytest.mark.timeout(120)
def test_every_worker_of_a_crowd_brings_groups(tmp_path: Path) -> None:
    """Shares are of the mean, so the least is at most 1; the exit code is the targets'."""
    out = tmp_path / "crowd.json"
    code = main(["--workers", "8", "--rounds", "1", "--seconds", "1", "--out", str(out)])
    result = json.loads(out.read_text())
    assert 0 < result["least_share"] <= 1
    [entry] = result["rounds"]
    assert entry["one"]["least_share"] == 1
    assert entry["one"]["cpu_seconds_a_group"] > 0
    assert code == (0 if result["cpu_ratio_median"] <= 1.5 and result["least_share"] >= 0.5 else 1)


@pytest.mark.timeout(120)
def test_an_encrypted_stream_is_measured_as_well() -> None:
    """With keys of its own, which are gone afterwards."""
    assert wire.our_rate("tcp with CURVE", 0.5, 2) > 0
