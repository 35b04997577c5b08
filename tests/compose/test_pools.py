"""The files for pools on top of the first: one fills a pool, the other trains from it without generators."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400)]

CAPTIONS, IMAGES, STEPS = 40, 3, 8


def test_a_pool_is_filled_and_trained_from(
    project: Any, tmp_path: Path, uses_of: Callable[[Path], list[Any]]
) -> None:
    """Both end by themselves; the training has no generator, and its groups come from the pool."""
    captions = "\n".join(f"caption number {index}" for index in range(CAPTIONS))
    (project.files / "captions.txt").write_text(captions, "utf-8")
    project.set(captions__source="captions.txt", pool__images_per_caption=IMAGES, run__max_steps=STEPS)

    project.layer("docker-compose.pool.yml")
    project.compose("up", "--scale", "generator=2", seconds=240)
    project.assert_ended({"keys-1": 0, "trainer-1": 0, "generator-1": 0, "generator-2": 0})
    inspect = ("pool", "inspect", "/pools/pool", "--sheet", "/runs/sheet.png")
    looked = project.compose("run", "--rm", "--no-deps", "-T", "trainer", *inspect)
    assert ["images", str(CAPTIONS * IMAGES)] in [line.split() for line in looked.splitlines()]

    project.layer("docker-compose.offline.yml")
    project.compose("up", seconds=240)
    project.assert_ended({"keys-1": 0, "trainer-1": 0})
    run = project.take_run(tmp_path / "run")
    assert json.loads((run / "summary.json").read_text("utf-8"))["steps"] == STEPS
    assert len(uses_of(run)) == STEPS * 8
    with closing(sqlite3.connect(run / "ledger.sqlite")) as db:
        [(source,)] = db.execute("SELECT DISTINCT source FROM groups").fetchall()
    assert source != "online"
