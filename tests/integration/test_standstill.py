"""A real trainer that can't go on tells why, where a program can read it."""

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.timeout(240)
def test_a_trainer_without_workers_says_so_and_goes_on_when_one_joins(
    small_run: Callable[..., Any], start: Callable[..., Any]
) -> None:
    """Within 30 seconds of its start; the rows of steps then hold what the wait came to, by reason."""
    run = small_run()
    trainer = start("train", str(run.path))
    row = run.wait_for(lambda row: "stall" in row)
    assert (row["step"], row["stall"], row["workers"]) == (0, "no_worker_yet", 0)
    assert 5 <= row["stall_seconds"] < 30
    assert "loss" not in row
    generator = start("generate", str(run.path))
    assert trainer.wait(120) == 0
    assert generator.wait(30) == 0
    last = run.rows()[-1]
    assert last["step"] == 12
    assert last["stalls"]["no_worker_yet"] >= 5


@pytest.mark.timeout(240)
def test_a_stopped_worker_is_named_as_the_blocked_side(
    small_run: Callable[..., Any], start: Callable[..., Any]
) -> None:
    """SIGSTOP in the middle: silence is told within 30 seconds; after SIGCONT the same worker comes back."""
    run = small_run(run__max_steps=5000, generator__fake_images_per_second=120.0)
    trainer, generator = start("train", str(run.path)), start("generate", str(run.path))
    run.wait_for(lambda row: row["step"] >= 2)
    generator.send_signal(signal.SIGSTOP)
    stopped = time.time()
    row = run.wait_for(lambda row: row.get("stall") == "workers_silent")
    assert row["time"] - stopped < 30
    assert row["heard_seconds_ago"] > 3
    generator.send_signal(signal.SIGCONT)
    run.wait_for(lambda later: "loss" in later and later["step"] > row["step"] + 4)
    for process in (trainer, generator):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(20) for process in (trainer, generator)] == [0, 0]
