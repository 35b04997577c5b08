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
    of `streamrep up` to the end: every promised id is trained on exactly once. The worker knows one address.
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

    up = start("up", str(run.path), "--ranks", "2")
    _, errors = up.communicate(timeout=150)
    assert up.returncode == 0, errors
    assert (run.folder / "trainer-1.log").is_file()
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
    """Groups come again from step 17 on. Two ranks that take over from one draw its ring again, each the
    groups of its own slots, and train on what one rank would have."""
    settings = {
        "run__max_steps": STEPS,
        "stream__order": "ticket",
        "stream__max_reuse": 2,
        "stream__ring_groups": 16 * BATCH,
        "train__precision": "float32",
        "train__lr": 1e-3,
        "generator__fake_images_per_second": 120.0,
    }
    whole, taken_over = (small_run(name, **settings) for name in ("whole", "taken-over"))
    for run, worlds in ((whole, [1]), (taken_over, [1, 2])):
        worker = start("generate", str(run.path))
        for world in worlds:
            ranks = start_ranks(run, world)
            if len(worlds) > world:
                run.wait_for(lambda row: row["step"] >= 18)
                ranks[0].kill()
                ranks[0].communicate(timeout=10)
                continue
            errors = _end(ranks, 120)
            assert [rank.returncode for rank in ranks] == [0] * world, errors
        assert worker.wait(20) == 0
    assert _losses(taken_over) == pytest.approx(_losses(whole), rel=1e-3)
    assert len(set(_losses(whole).values())) == STEPS
    composition = "SELECT step, group_id, use FROM uses ORDER BY step, group_id"
    assert _query(taken_over, composition) == _query(whole, composition)
    by_both = "SELECT rank, use, count(*) FROM uses WHERE step > 20 GROUP BY rank, use ORDER BY rank, use"
    assert _query(taken_over, by_both) == [(r, use, 4 * BATCH // 4) for r in (0, 1) for use in (1, 2)]
    assert _query(taken_over, "SELECT count(*) FROM uses WHERE step > 20 AND group_id % 2 != rank") == [(0,)]
