"""`streamrep ctl` on real trainers with the fake engine: pauses and switches, resumed and replayed."""

import json
import os
import signal
import sqlite3
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.checkpoint import Checkpoints

CAPTIONS = [f"caption number {i}" for i in range(20)]
STEPS = 36
START_SECONDS = 300


def _query(run: Any, query: str) -> list[Any]:
    db = sqlite3.connect(run.folder / "ledger.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def _finish(process: Any) -> str:
    _, errors = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0, errors
    return str(errors)


def _losses(run: Any) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in run.rows() if "loss" in row]


@pytest.fixture
def ctl(start: Callable[..., Any]) -> Callable[..., tuple[int, str, str]]:
    """Runs `streamrep ctl RUN WORDS`; returns its exit code and both outputs."""

    def ask(run: Any, *words: str) -> tuple[int, str, str]:
        process = start("ctl", str(run.folder), *words)
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors

    return ask


@pytest.fixture
def pool_run(small_run: Callable[..., Any], start: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Runs in ticket order on a pool of 6 images a caption, which is filled first and recorded into."""
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(CAPTIONS), "utf-8")

    def make(name: str, **values: Any) -> Any:
        fields: dict[str, Any] = {
            "captions__source": str(captions),
            "run__max_steps": STEPS,
            "stream__order": "ticket",
            "stream__max_reuse": 4,
            "pool__dir": str(tmp_path / "pool"),
            "pool__write": True,
            "pool__images_per_caption": 6,
            "train__checkpoint_every": 1000,
        }
        return small_run(name, **fields | values)

    _finish(start("pool", str(make("filling").path), "--out", str(tmp_path / "pool")))
    return make


@pytest.mark.timeout(900)
def test_a_switch_is_made_again_after_a_kill_and_replayed(
    pool_run: Callable[..., Any], start: Callable[..., Any], ctl: Callable[..., tuple[int, str, str]]
) -> None:
    """Online, then offline while paused. The trainer is killed after the switch and resumed from step 0: the
    same steps have the same losses, with the workers still there; so has a replay of the run."""
    run = pool_run("switched", generator__fake_images_per_second=120.0)
    trainer, generator = start("train", str(run.path)), start("generate", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["step"] >= 4, START_SECONDS)
    assert stat.S_IMODE(os.stat(run.folder / "control.sock").st_mode) == 0o600
    assert ctl(run, "pause")[0] == 0
    step = run.wait_for(lambda row: row.get("stall") == "paused")["step"]
    code, out, errors = ctl(run, "mode", "offline")
    assert (code, out) == (0, "mode offline\n"), errors
    status = json.loads(ctl(run, "status", "--json")[1])
    assert (status["step"], status["mode"], status["paused"]) == (step, "offline", True)
    assert (status["workers"], status["stall"]) == (1, "paused")
    assert ctl(run, "resume")[0] == 0
    run.wait_for(lambda row: "loss" in row and row["step"] >= step + 6)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait(10)
    before = _losses(run)
    _finish(start("train", str(run.path)))
    _finish(generator)
    after = _losses(run)
    assert [at for at, _ in after] == list(range(1, STEPS + 1))
    assert before == after[: len(before)]
    switches = _query(run, "SELECT step, setting, origin FROM switches ORDER BY step, time")
    assert switches == [(1, "online", "run file"), (step + 1, "offline", "ctl")]
    born = "SELECT source, min(step), max(step) FROM uses JOIN groups USING (group_id) WHERE use = 1"
    assert _query(run, f"{born} GROUP BY source ORDER BY source") == [
        ("online", 1, step),
        ("pool", step + 1, STEPS),
    ]
    replayed = pool_run("replayed", pool__write=False, run__mode="offline", pool__replay=str(run.folder))
    _finish(start("train", str(replayed.path)))
    assert _losses(replayed) == after


@pytest.mark.timeout(900)
def test_ranks_pause_and_switch_together_and_do_so_again_after_a_kill(
    pool_run: Callable[..., Any],
    start: Callable[..., Any],
    start_ranks: Callable[..., Any],
    ctl: Callable[..., tuple[int, str, str]],
) -> None:
    """Two ranks, paused, switched and killed. Those that are resumed from step 0 make the switch at its step
    again and find the same losses; no rank trains a step in another mode than the other."""
    run = pool_run("ranks", pool__write=False, generator__fake_images_per_second=120.0)
    ranks, generator = start_ranks(run, 2), start("generate", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["step"] >= 4, START_SECONDS)
    assert ctl(run, "pause")[0] == 0
    step = run.wait_for(lambda row: row.get("stall") == "paused")["step"]
    code, out, errors = ctl(run, "mode", "offline")
    assert (code, out) == (0, "mode offline\n"), errors
    status = json.loads(ctl(run, "status", "--json")[1])
    assert (status["step"], status["mode"], status["paused"]) == (step, "offline", True)
    assert ctl(run, "resume")[0] == 0
    run.wait_for(lambda row: "loss" in row and row["step"] >= step + 6)
    for rank in ranks:
        rank.kill()
        rank.communicate(timeout=10)
    before = _losses(run)
    for rank in start_ranks(run, 2):
        _finish(rank)
    _finish(generator)
    after = _losses(run)
    assert [at for at, _ in after] == list(range(1, STEPS + 1))
    assert before == after[: len(before)]
    born = "SELECT source, rank, min(step), max(step) FROM uses JOIN groups USING (group_id) WHERE use = 1"
    assert _query(run, f"{born} GROUP BY source, rank ORDER BY source, rank") == [
        (source, rank, first, last)
        for source, first, last in (("online", 1, step), ("pool", step + 1, STEPS))
        for rank in (0, 1)
    ]


@pytest.mark.timeout(900)
def test_ranks_stay_in_their_mode_where_one_of_them_can_not_change(
    pool_run: Callable[..., Any],
    start: Callable[..., Any],
    start_ranks: Callable[..., Any],
    ctl: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    """The second rank has no pool where its machine's is said to be: the refusal names rank and folder, and
    the run ends as if nobody had asked. A pause in between is ended by SIGTERM to the second rank."""
    run = pool_run("apart", pool__write=False, generator__fake_images_per_second=60.0)
    ranks = start_ranks(run, 2, of_last=["--pool.dir", str(tmp_path / "nowhere")])
    generator = start("generate", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["step"] >= 4, START_SECONDS)
    code, _, errors = ctl(run, "mode", "offline")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "rank 1: " in errors
    assert str(tmp_path / "nowhere") in errors
    step = run.rows()[-1]["step"]
    run.wait_for(lambda row: "loss" in row and row["step"] > step and row["mode"] == "online")
    assert ctl(run, "pause")[0] == 0
    ranks[1].send_signal(signal.SIGTERM)
    for process in (*ranks, generator):
        _finish(process)
    settings = _query(run, "SELECT setting FROM switches ORDER BY time")
    assert settings == [("online",), ("pause",)]


@pytest.mark.timeout(900)
def test_in_arrival_order_no_id_is_lost_over_switches(
    pool_run: Callable[..., Any], start: Callable[..., Any], ctl: Callable[..., tuple[int, str, str]]
) -> None:
    """Online, mixed, offline, and stopped there; what was switched to outlives the stop."""
    run = pool_run(
        "arrivals",
        run__max_steps=90,
        stream__order="arrival",
        stream__max_reuse=1,
        pool__share=0.5,
        pool__write=False,
        generator__fake_images_per_second=90.0,
    )
    trainer, generator = start("train", str(run.path)), start("generate", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["step"] >= 4, START_SECONDS)
    assert ctl(run, "mode", "mixed")[:2] == (0, "mode mixed\n")
    run.wait_for(lambda row: row.get("mode") == "mixed" and row.get("fresh_fraction") == 1)
    assert ctl(run, "pause")[0] == 0
    assert ctl(run, "mode", "offline")[0] == 0
    trainer.send_signal(signal.SIGTERM)
    _finish(trainer)
    modes = dict(_query(run, "SELECT setting, step FROM switches WHERE setting != 'pause'"))
    trainer = start("train", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["mode"] == "offline", START_SECONDS)
    _finish(trainer)
    if generator.poll() is None:
        generator.send_signal(signal.SIGTERM)
    _finish(generator)
    rows = _query(run, "SELECT step, source, count(*) FROM uses JOIN groups USING (group_id) GROUP BY 1, 2")
    parts = {(step, source): count for step, source, count in rows}
    for step in range(1, 91):
        pooled = 0 if step < modes["mixed"] else 4 if step < modes["offline"] else 8
        assert (parts.get((step, "pool"), 0), parts.get((step, "online"), 0)) == (pooled, 8 - pooled)
    ids = _query(run, "SELECT group_id FROM uses ORDER BY group_id")
    assert ids == [(group_id,) for group_id in range(90 * 8)]


@pytest.mark.timeout(600)
def test_a_trainer_that_waits_hears_and_refuses_the_impossible(
    small_run: Callable[..., Any], start: Callable[..., Any], ctl: Callable[..., tuple[int, str, str]]
) -> None:
    """A trainer without workers hears at once; without a pool it goes on as it was, with one line."""
    run = small_run(run__max_steps=5000, generator__fake_images_per_second=240.0)
    assert ctl(run, "status")[0] == 2
    trainer = start("train", str(run.path))
    run.wait_for(lambda row: row.get("stall") == "no_worker_yet", START_SECONDS)
    began = time.monotonic()
    code, _, errors = ctl(run, "mode", "offline")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "pool.dir" in errors
    assert ctl(run, "mode", "online")[0] == 0
    assert time.monotonic() - began < 60
    generator = start("generate", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["step"] >= 2, START_SECONDS)
    for process in (trainer, generator):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(60) for process in (trainer, generator)] == [0, 0]
    assert not (run.folder / "control.sock").exists()


@pytest.mark.timeout(600)
def test_auto_reuse_finds_how_often_groups_must_be_used(
    small_run: Callable[..., Any], start: Callable[..., Any]
) -> None:
    """The generator is slow: reuse rises above 1 within its bound, and each row tells it. A run that goes on
    after a kill begins with the reuse of its checkpoint."""
    run = small_run(
        run__max_steps=120,
        stream__reuse="auto",
        stream__max_reuse=50,
        stream__waiting_target=0.1,
        generator__fake_images_per_second=60.0,
    )
    trainer, generator = start("train", str(run.path)), start("generate", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["step"] >= 30, START_SECONDS)
    trainer.kill()
    trainer.wait(10)
    latest = Checkpoints(run.folder / "checkpoints", keep=100).latest()
    assert latest is not None
    state = latest[0]
    assert state.step >= 10
    trainer = start("train", str(run.path))
    _finish(trainer)
    _finish(generator)
    rows = [row for row in run.rows() if "loss" in row]
    [first] = [row for row in rows if row["step"] == state.step + 1]
    assert state.reuse is not None
    assert state.reuse > 1.1
    # Until the ring is full again nothing is learnt of the generator, so nothing moves it.
    assert first["reuse"] == state.reuse
    assert all(1 <= row["reuse"] <= 50 for row in rows)
    assert rows[-1]["reuse"] > 1.5
    late = rows[60:]
    assert sum(row["fresh_fraction"] for row in late) / len(late) == pytest.approx(
        sum(1 / row["reuse"] for row in late) / len(late), abs=0.1
    )
    [(uses,)] = _query(run, "SELECT max(use) FROM uses")
    assert uses <= 50
    # These are of the second trainer alone.
    trained = (120 - state.step) * 8
    assert sum(rows[-1]["uses"].values()) == sum(rows[-1]["age_seconds"].values()) == trained
