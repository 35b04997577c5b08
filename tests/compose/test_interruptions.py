"""A run that is scaled, killed, stopped and begun again: nothing is lost and nothing trained twice."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]

GROUPS = 8
STOP_SECONDS = 10.0


def test_nothing_is_lost_or_repeated(
    project: Any, tmp_path: Path, uses_of: Callable[[Path], list[Any]]
) -> None:
    """A killed generator, a crashed and a killed trainer, a stop; the ledger holds each id once."""
    project.set(run__max_steps=100_000, generator__fake_images_per_second=60.0)
    project.compose("up", "--detach")
    project.wait_for(lambda row: row["step"] >= 5)
    project.compose("up", "--detach", "--scale", "generator=3", "--no-recreate")
    scaled = project.wait_for(lambda row: row["workers"] == 3)

    project.docker("kill", f"{project.name}-generator-2")
    project.wait_for(lambda row: row["workers"] == 2 and row["step"] >= scaled["step"] + 20)

    project.kill_command("trainer")
    crashed = project.wait_for(lambda row: row["step"] >= scaled["step"] + 40)
    [trainer] = project.of_service("trainer")
    assert trainer["RestartCount"] == 1, "the trainer was started again by itself"

    project.kill_command("generator")
    project.docker("kill", f"{project.name}-trainer-1")
    project.compose("up", "--detach", "--scale", "generator=2", "--no-recreate")
    project.wait_for(lambda row: row["workers"] == 2 and row["step"] >= crashed["step"] + 10)

    began = time.monotonic()
    project.compose("stop")
    assert time.monotonic() - began < STOP_SECONDS
    assert set(project.exit_codes().values()) == {0}, "all ended by themselves, none was killed"
    stopped = project.take_run(tmp_path / "stopped")
    step = uses_of(stopped)[-1][0]
    assert (stopped / "checkpoints" / f"step-{step:09d}").is_dir(), "no step was lost by stopping"

    # Above every id that was handed out so far, so that the promise covers all of them.
    last = step + 40
    project.set(run__max_steps=last)
    project.compose("up", "--scale", "generator=2", seconds=300)
    run = project.take_run(tmp_path / "run")
    uses = uses_of(run)
    assert [step for step, _ in uses] == [step for step in range(1, last + 1) for _ in range(GROUPS)]
    assert sorted(group_id for _, group_id in uses) == list(range(last * GROUPS))
    assert uses[: step * GROUPS] == uses_of(stopped), "what was trained before the stop stays"
