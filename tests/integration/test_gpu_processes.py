"""`streamrep generate --gpus` with the fake engine, which needs no GPU."""

import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.timeout(240)
def test_a_generator_for_each_device_draws_and_all_end_with_the_run(
    small_run: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    """The ledger knows two workers; the command ends with 0 when the trainer says stop."""
    run = small_run(run__max_steps=40, generator__fake_images_per_second=60.0)
    logs = tmp_path / "logs"
    generators = start("generate", str(run.path), "--gpus", "0,1", "--logs", str(logs))
    trainer = start("train", str(run.path))
    assert trainer.wait(200) == 0
    out, errors = generators.communicate(timeout=30)
    assert generators.returncode == 0, errors
    assert "cuda:0: generator " in out
    assert "cuda:1: generator " in out
    assert sorted(path.name for path in logs.iterdir()) == ["cuda-0.log", "cuda-1.log"]
    db = sqlite3.connect(run.folder / "ledger.sqlite")
    [(workers,)] = db.execute("SELECT count(DISTINCT worker) FROM groups").fetchall()
    db.close()
    assert workers == 2


@pytest.mark.timeout(240)
def test_a_signal_ends_all_of_them(
    small_run: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    """Within ten seconds, with 0, also while no trainer answers."""
    run = small_run()
    logs = tmp_path / "logs"
    generators = start("generate", str(run.path), "--gpus", "0,1", "--logs", str(logs))
    while "looking for a trainer" not in generators.stdout.readline():
        assert generators.poll() is None
    generators.send_signal(signal.SIGTERM)
    assert generators.wait(10) == 0
