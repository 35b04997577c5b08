"""The fuzzing command, short: 20,000 random and mutated messages against a live feed beside real workers."""

import json
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.nonsense import expected_reasons


@pytest.mark.timeout(300)
def test_a_live_feed_survives_nonsense_and_counts_it(tmp_path: Path) -> None:
    """Every named refusal is counted, workers go on delivering, and memory does not grow with messages.

    Throughput is judged by the command, not here, since tests share their machine.
    """
    out = tmp_path / "fuzz.json"
    fuzz.main(["--messages", "20000", "--rate", "4000", "--quiet-seconds", "1", "--out", str(out)])
    result = json.loads(out.read_text("utf-8"))
    assert set(result["refused"]) >= expected_reasons()
    assert result["groups_per_second"]["fuzzed"] > 0
    assert result["memory_growth_bytes"] < fuzz.MEMORY_GROWTH_BYTES
    # Most of what was sent is refused; the rest are valid words of a peer that draws nothing.
    assert sum(result["refused"].values()) > 10_000
