"""Runs on a pool: as exact as runs in ticket order, and one with the online runs of the same file."""

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.checkpoint import Checkpoints

CAPTIONS = [f"caption number {i}" for i in range(20)]
STEPS = 24
START_SECONDS = 300


@pytest.fixture
def pool_run(small_run: Callable[..., Any], start: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Runs on one pool of 6 images a caption, which is filled first."""
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(CAPTIONS), "utf-8")

    def make(name: str, **values: Any) -> Any:
        fields: dict[str, Any] = {
            "captions__source": str(captions),
            "run__max_steps": STEPS,
            "pool__dir": str(tmp_path / "pool"),
            "pool__images_per_caption": 6,
        }
        return small_run(name, **fields | values)

    filling = start("pool", str(make("filling").path), "--out", str(tmp_path / "pool"))
    assert filling.wait(START_SECONDS) == 0, filling.communicate()[1]
    return make


def _losses(run: Any) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in run.rows() if "loss" in row]


def _query(run: Any, query: str) -> list[Any]:
    db = sqlite3.connect(run.folder / "ledger.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def _finish(process: Any) -> None:
    assert process.wait(START_SECONDS) == 0, process.communicate()[1]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("order", ["arrival", "ticket"])
def test_an_offline_run_is_exact_whatever_its_processes_and_interruptions(
    pool_run: Callable[..., Any], start: Callable[..., Any], order: str
) -> None:
    """One without a break; one with three processes that is killed in its second epoch and resumed."""
    values = {"run__mode": "offline", "stream__order": order, "stream__max_reuse": 4}
    whole, killed = pool_run("whole", **values), pool_run("killed", **values, pool__processes=3)
    _finish(start("up", str(whole.path)))
    trainer = start("train", str(killed.path))
    killed.wait_for(lambda row: "loss" in row and row["step"] >= 13, START_SECONDS)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait(10)
    _finish(start("train", str(killed.path), "--pool.processes", "1"))
    assert [step for step, _ in _losses(whole)] == list(range(1, STEPS + 1))
    assert _losses(whole) == _losses(killed)
    uses = "SELECT step, slot, group_id, use, digest FROM uses JOIN groups USING (group_id) ORDER BY 1, 2"
    assert _query(whole, uses) == _query(killed, uses)
    assert _query(whole, "SELECT DISTINCT source FROM groups") == [("pool",)]
    # Each group is new in arrival order; in ticket order the file's max_reuse means what it always does.
    expected = {1, 2} if order == "ticket" else {1}
    assert {use for (use,) in _query(whole, "SELECT DISTINCT use FROM uses")} == expected
    summary = json.loads((whole.folder / "summary.json").read_text("utf-8"))
    assert summary["images_generated"] == 0
    assert summary["images_trained"] == STEPS * 8 * 3


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("order", "reuse"), [("arrival", 1), ("ticket", 4)])
def test_a_run_goes_on_in_another_mode(
    pool_run: Callable[..., Any], start: Callable[..., Any], order: str, reuse: int
) -> None:
    """Offline until step 8, online until 16, offline to the end: one file, one checkpoint after the other."""
    run = pool_run("switched", run__mode="offline", stream__order=order, stream__max_reuse=reuse)
    words = ["train", str(run.path)]
    _finish(start(*words, "--run.max_steps", "8"))
    trainer = start(*words, "--run.max_steps", "16", "--run.mode", "online")
    generator = start("generate", str(run.path))
    _finish(trainer)
    _finish(generator)
    _finish(start(*words))
    sources = _query(run, "SELECT step, source FROM uses JOIN groups USING (group_id) WHERE use = 1")
    assert {source for step, source in sources if step <= 8} == {"pool"}
    assert {source for step, source in sources if 8 < step <= 16} == {"online"}
    assert {source for step, source in sources if step > 16} == {"pool"}
    ids = sorted(group_id for (group_id,) in _query(run, "SELECT group_id FROM groups"))
    assert ids == list(range(len(ids)))
    latest = Checkpoints(run.folder / "checkpoints", 1).latest()
    assert latest is not None
    assert (latest[0].step, latest[0].done_low, latest[0].done_above) == (STEPS, len(ids), ())


@pytest.mark.timeout(600)
def test_a_pool_that_is_lost_during_a_run_stops_it_with_one_line(
    pool_run: Callable[..., Any], start: Callable[..., Any], tmp_path: Path
) -> None:
    """Exit code 2, the reason, and the same command goes on when the pool is back."""
    run = pool_run("lost", run__mode="offline", pool__max_damaged=5)
    shard = tmp_path / "pool" / "shard-000000.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 3])
    process = start("train", str(run.path))
    _, errors = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 2, errors
    assert "pool is damaged" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    shard.write_bytes(whole)
    _finish(start("train", str(run.path)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("order", "reuse"), [("arrival", 1), ("ticket", 4)])
def test_a_mixed_run_takes_its_share_of_either(
    pool_run: Callable[..., Any], start: Callable[..., Any], order: str, reuse: int
) -> None:
    """Half of each batch from the pool until 64 groups were trained on, killed and resumed on the way."""
    run = pool_run(
        "mixed",
        run__mode="mixed",
        stream__order=order,
        stream__max_reuse=reuse,
        pool__share=0.5,
        pool__until=64,
        generator__fake_images_per_second=240.0,
    )
    trainer, generator = start("train", str(run.path)), start("generate", str(run.path))
    run.wait_for(lambda row: "loss" in row and row["step"] >= 6, START_SECONDS)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait(10)
    _finish(start("train", str(run.path)))
    _finish(generator)
    rows = _query(run, "SELECT step, source, count(*) FROM uses JOIN groups USING (group_id) GROUP BY 1, 2")
    parts = {(step, source): count for step, source, count in rows}
    for step in range(1, STEPS + 1):
        pooled = parts.get((step, "pool"), 0)
        assert pooled + parts.get((step, "online"), 0) == 8
        if step <= 8 or reuse == 1:
            assert pooled == (4 if step <= 8 else 0)
    # In ticket order used groups keep their source; no new one is the pool's after its end.
    new = "SELECT max(step) FROM uses JOIN groups USING (group_id) WHERE use = 1 AND source = 'pool'"
    assert _query(run, new) == [(8,)]
    ids = sorted(group_id for (group_id,) in _query(run, "SELECT group_id FROM groups"))
    assert ids == list(range(len(ids)))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("order", ["ticket", "arrival"])
def test_a_recorded_run_replayed_offline_has_the_same_losses(
    small_run: Callable[..., Any], start: Callable[..., Any], tmp_path: Path, order: str
) -> None:
    """Bit for bit, though the recorded one was killed and resumed, and so was the replay."""
    values = {
        "run__max_steps": STEPS,
        "stream__order": order,
        "stream__max_reuse": 4,
        "pool__dir": str(tmp_path / "recorded"),
        "pool__write": True,
        "generator__fake_images_per_second": 240.0,
    }
    online = small_run("online", **values)
    trainer, generator = start("train", str(online.path)), start("generate", str(online.path))
    online.wait_for(lambda row: "loss" in row and row["step"] >= 13, START_SECONDS)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait(10)
    _finish(start("train", str(online.path)))
    _finish(generator)
    offline = small_run("offline", **values)
    words = [str(offline.path), "--run.mode", "offline", "--pool.replay", str(online.folder)]
    trainer = start("train", *words)
    offline.wait_for(lambda row: "loss" in row and row["step"] >= 12, START_SECONDS)
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait(10)
    _finish(start("train", *words))
    assert [step for step, _ in _losses(online)] == list(range(1, STEPS + 1))
    assert _losses(offline) == _losses(online)
    uses = "SELECT step, slot, group_id, use, digest FROM uses JOIN groups USING (group_id) ORDER BY 1, 2"
    assert _query(offline, uses) == _query(online, uses)
    assert _query(offline, "SELECT DISTINCT source FROM groups") == [("pool",)]
    # Drawn after a checkpoint and lost with it, nothing but what was trained on is in the pool.
    if order == "ticket":
        trained = {group_id for (group_id,) in _query(online, "SELECT group_id FROM groups")}
        indices = [json.loads(path.read_text()) for path in (tmp_path / "recorded").glob("*.index.json")]
        assert {group_id for index in indices for group_id, _ in index["groups"]} == trained
