"""The chaos command, short: real processes killed, stopped and resumed at random."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(400)
def test_nothing_is_lost_or_doubled_when_everything_is_killed(tmp_path: Path) -> None:
    """Half a minute: every promised id once, with its ticket's pixels; weights and ledger agree."""
    out = tmp_path / "chaos.json"
    words = ["bench", "chaos", "--seconds", "30", "--keep", str(tmp_path / "run"), "--out", str(out)]
    process = subprocess.run(
        [sys.executable, "-m", "launcher", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=390,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    result = json.loads(out.read_text("utf-8"))
    assert (result["lost"], result["doubled"], result["unpromised"], result["wrong_pixels"]) == (0, 0, 0, 0)
    assert result["checkpoint_step"] == result["steps"]
    assert result["trainer_kills"] == 5
    assert result["worker_kills"] >= 5
    assert result["worker_pauses"] >= 5
