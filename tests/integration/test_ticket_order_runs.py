"""Runs in ticket order with the fake engine: the same losses, whoever draws and whatever happens."""

import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STEPS = 48
SETTINGS: dict[str, Any] = {
    "run__max_steps": STEPS,
    "stream__order": "ticket",
    "stream__max_reuse": 4,
    "generator__fake_images_per_second": 240.0,
}


def _losses(run: Any) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in run.rows() if "loss" in row]


def _uses(folder: Path) -> list[tuple[int, ...]]:
    db = sqlite3.connect(folder / "ledger.sqlite")
    try:
        return db.execute("SELECT step, slot, group_id, use FROM uses ORDER BY step, slot").fetchall()
    finally:
        db.close()


@pytest.mark.timeout(900)
def test_losses_and_uses_do_not_depend_on_workers_or_interruptions(
    small_run: Callable[..., Any], start: Callable[..., Any]
) -> None:
    """One worker; two, one of them with another batch; one whose trainer is killed on the way and resumed."""
    one, two, killed = (small_run(name, **SETTINGS) for name in ("one", "two", "killed"))
    trainer, generator = start("train", str(one.path)), start("generate", str(one.path))
    assert trainer.wait(300) == 0, trainer.communicate()[1]
    assert generator.wait(60) == 0

    trainer = start("train", str(two.path))
    generators = [
        start("generate", str(two.path)),
        start("generate", str(two.path), "--generator.batch_images", "3"),
    ]
    assert trainer.wait(300) == 0, trainer.communicate()[1]
    assert [generator.wait(60) for generator in generators] == [0, 0]

    trainer, generator = start("train", str(killed.path)), start("generate", str(killed.path))
    killed.wait_for(lambda row: "loss" in row and row["step"] >= 23, 300)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait(10)
    assert max(step for step, _ in _losses(killed)) < STEPS
    trainer = start("train", str(killed.path))
    assert trainer.wait(300) == 0, trainer.communicate()[1]
    assert generator.wait(60) == 0

    assert [step for step, _ in _losses(one)] == list(range(1, STEPS + 1))
    assert _losses(one) == _losses(two) == _losses(killed)
    assert len(_uses(one.folder)) == STEPS * 8
    assert _uses(one.folder) == _uses(two.folder) == _uses(killed.folder)


@pytest.mark.timeout(400)
def test_other_settings_cannot_go_on_in_ticket_order(
    small_run: Callable[..., Any], start: Callable[..., Any]
) -> None:
    """One line names what was trained and what these settings would have."""
    run = small_run(**SETTINGS | {"run__max_steps": 6, "generator__fake_images_per_second": 0.0})
    trainer, generator = start("train", str(run.path)), start("generate", str(run.path))
    assert trainer.wait(200) == 0, trainer.communicate()[1]
    assert generator.wait(60) == 0
    again = start("train", str(run.path), "--stream.max_reuse", "2")
    _, errors = again.communicate(timeout=150)
    assert again.returncode == 2
    assert "can't go on in ticket order" in errors
