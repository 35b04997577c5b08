"""Trainers of two ranks: processes of the `streamrep` command, gloo over loopback, one worker."""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

BATCH, STEPS = 8, 24


def _query(run: Any, query: str) -> list[Any]:
    db = sqlite3.connect(run.folder / "ledger.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def _losses(run: Any) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in run.rows() if "loss" in row}


def _end(processes: "list[subprocess.Popen[str]]", seconds: float) -> list[str]:
    """What each printed to stderr, when all of them have ended in that time."""
    deadline = time.monotonic() + seconds
    return [process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1] for process in processes]


@pytest.mark.timeout(420)
def test_ranks_die_stop_and_change_in_number_and_nothing_is_lost(
    small_run: Callable[..., Any],
    start: Callable[..., Any],
    start_ranks: Callable[..., "list[subprocess.Popen[str]]"],
) -> None:
    """Two ranks of which one is killed, one that is killed, two that are stopped through one of them, and two
    to the end: every promised id is trained on exactly once, by a worker that knows the first rank's address.
    """
    run = small_run(run__max_steps=STEPS, train__checkpoint_every=3, generator__fake_images_per_second=60.0)
    worker = start("generate", str(run.path))

    ranks = start_ranks(run, 2)
    run.wait_for(lambda row: row["step"] >= 4)
    ranks[1].kill()
    began = time.monotonic()
    errors = _end(ranks, 20)
    assert time.monotonic() - began < 10
    assert ranks[0].returncode == 1
    assert [line for line in errors[0].splitlines() if line.startswith("streamrep: ")] == [
        "streamrep: PeerFailed: rank 1 has died"
    ]

    [alone] = start_ranks(run, 1)
    run.wait_for(lambda row: row["step"] >= 10)
    alone.kill()
    alone.communicate(timeout=10)
    assert worker.poll() is None, "it waits for the run to go on"

    ranks = start_ranks(run, 2)
    run.wait_for(lambda row: row["step"] >= 15)
    ranks[1].send_signal(signal.SIGTERM)
    _end(ranks, 30)
    assert [rank.returncode for rank in ranks] == [0, 0]
    [(stopped_at,)] = _query(run, "SELECT max(step) FROM uses")
    assert stopped_at < STEPS
    assert (run.folder / "checkpoints" / f"step-{stopped_at:09d}").is_dir()
    assert worker.wait(20) == 0

    worker = start("generate", str(run.path))
    ranks = start_ranks(run, 2)
    errors = _end(ranks, 120)
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    assert worker.wait(20) == 0
    uses = _query(run, "SELECT group_id, step, use FROM uses")
    assert sorted(group_id for group_id, _, _ in uses) == list(range(STEPS * BATCH))
    assert {use for _, _, use in uses} == {1}
    by_rank = dict(_query(run, "SELECT rank, count(*) FROM uses WHERE step > 15 GROUP BY rank"))
    assert by_rank[0] == by_rank[1] == (STEPS - 15) * BATCH // 2
    assert _query(run, "SELECT count(*) FROM groups WHERE worker = ''") == [(0,)]
    assert sorted(_losses(run)) == list(range(1, STEPS + 1))


@pytest.mark.timeout(300)
def test_two_ranks_find_the_losses_of_one_in_ticket_order(
    small_run: Callable[..., Any],
    start: Callable[..., Any],
    start_ranks: Callable[..., "list[subprocess.Popen[str]]"],
) -> None:
    """Groups are used twice; both runs train on the same ones at every step, each rank on its own slots."""
    settings = {
        "run__max_steps": 12,
        "stream__order": "ticket",
        "stream__max_reuse": 2,
        "stream__ring_groups": 128,
        "train__precision": "float32",
        "train__lr": 1e-3,
    }
    runs = [small_run(f"world-{world}", **settings) for world in (1, 2)]
    for world, run in zip((1, 2), runs, strict=True):
        worker = start("generate", str(run.path))
        ranks = start_ranks(run, world)
        errors = _end(ranks, 120)
        assert [rank.returncode for rank in ranks] == [0] * world, errors
        assert worker.wait(20) == 0
    one, two = (_losses(run) for run in runs)
    assert two == pytest.approx(one, rel=1e-4)
    assert len(set(one.values())) == 12
    composition = "SELECT step, group_id, use FROM uses ORDER BY step, group_id"
    assert _query(runs[0], composition) == _query(runs[1], composition)
    moved = "SELECT group_id FROM uses GROUP BY group_id HAVING min(rank) < max(rank)"
    assert _query(runs[1], moved) == []
    assert _query(runs[1], "SELECT rank, count(*) FROM uses GROUP BY rank") == [(0, 48), (1, 48)]
