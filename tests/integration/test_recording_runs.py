"""A trainer that records into a pool is killed: pool, ledger and weights still tell of the same groups."""

import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.generation import GenerationSpec
from protocol.payload import checksum
from trainer.captions import load_captions
from trainer.checkpoint import Checkpoints
from trainer.config import CaptionsConfig
from trainer.plan import Plan
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image
from trainer.pool.pool import open_pool

BATCH, STEPS, VIEWS, SIZE = 8, 24, 3, 32
PLAN = Plan(load_captions(CaptionsConfig()), 0, GenerationSpec(views=VIEWS, size=SIZE))
START_SECONDS = 200.0


def _segments(pool: Path) -> list[dict[str, Any]]:
    """That count, by their indices."""
    return [json.loads(path.read_bytes()) for path in sorted(pool.glob("s*.index.json"))]


def _checkpoint_step(run: Any) -> int:
    """Of the newest whole one, while another process writes them."""
    return max((int(path.name[5:]) for path in (run.folder / "checkpoints").glob("step-*")), default=-1)


def _kill_ahead_of_its_checkpoint(trainer: Any, run: Any, pool: Path, step: int) -> None:
    """Once there are whole segments of steps that no checkpoint will know, that step or later ones. A segment
    comes before the checkpoint of its step, so the trainer is stopped before anyone looks."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        time.sleep(0.05)
        assert time.monotonic() < deadline, f"no such segment; the last rows are {run.rows()[-3:]}"
        assert trainer.poll() is None, trainer.communicate()[1]
        trainer.send_signal(signal.SIGSTOP)
        ahead = max((segment["step"] for segment in _segments(pool)), default=0)
        if ahead >= step and ahead > _checkpoint_step(run) >= step // 10 * 10:
            break
        trainer.send_signal(signal.SIGCONT)
    trainer.kill()
    trainer.wait(10)


def _digests(pool: Path) -> dict[int, str]:
    """Of the pixels of every group that the pool says it holds whole; every picture is read and decoded."""
    opened, files, found = open_pool(pool, max_damaged=0), PoolFiles(pool), {}
    groups = [group_id for segment in _segments(pool) for group_id, _ in segment["groups"]]
    assert len(groups) == len(set(groups)), "a group twice"
    for group_id in groups:
        ticket = PLAN.ticket(group_id)
        rows = opened.index.rows(ticket.caption_id, ticket.first_view, ticket.first_view + VIEWS)
        images = [opened.index.image(row) for row in rows]
        assert tuple(image.seed for image in images) == ticket.seeds
        found[group_id] = checksum(np.stack([decode_image(files.read(image.place)) for image in images]))
    files.close()
    assert len(opened.index) == len(groups) * VIEWS
    assert len(opened.damage) == 0
    return found


def _ledger(run: Any, query: str) -> list[Any]:
    db = sqlite3.connect(run.folder / "ledger.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("pool_format", "max_reuse", "kills"), [("webdataset", 1, (2, 12)), ("folders", 2, (12,))]
)
def test_a_killed_recording_holds_what_the_weights_were_trained_on(
    small_run: Callable[..., Any],
    start: Callable[..., Any],
    tmp_path: Path,
    pool_format: str,
    max_reuse: int,
    kills: tuple[int, ...],
) -> None:
    """Killed each time with whole segments of steps whose weights are lost, which are forgotten; who reads
    the pool before the run goes on finds it no less whole."""
    pool = tmp_path / "pool"
    run = small_run(
        run__max_steps=STEPS,
        train__checkpoint_every=10,
        stream__max_reuse=max_reuse,
        pool__write=True,
        pool__dir=str(pool),
        pool__format=pool_format,
        pool__picture="png",
        pool__shard_images=2 * VIEWS,
        generator__fake_images_per_second=192.0,
    )
    worker, trainer = start("generate", str(run.path)), start("train", str(run.path))
    for step in kills:
        _kill_ahead_of_its_checkpoint(trainer, run, pool, step)
        assert len(_digests(pool)) >= 2
        trainer = start("train", str(run.path))
    assert trainer.wait(START_SECONDS) == 0, trainer.communicate()[1]
    assert worker.wait(20) == 0

    uses: dict[int, list[int]] = {}
    for group_id, use in _ledger(run, "SELECT group_id, use FROM uses ORDER BY step"):
        uses.setdefault(group_id, []).append(use)
    assert all(found == list(range(1, len(found) + 1)) for found in uses.values())
    assert max(map(len, uses.values())) <= max_reuse
    by_step = Counter(step for (step,) in _ledger(run, "SELECT step FROM uses"))
    assert by_step == dict.fromkeys(range(1, STEPS + 1), BATCH)
    recorded = dict(_ledger(run, "SELECT group_id, digest FROM groups"))
    assert recorded.keys() == uses.keys()
    assert _digests(pool) == recorded
    latest = Checkpoints(run.folder / "checkpoints", keep=2).latest()
    assert latest is not None
    state = latest[0]
    assert (state.step, state.groups_trained, state.uses) == (STEPS, len(uses), STEPS * BATCH)
    assert {*range(state.done_low), *state.done_above} == uses.keys()
    if max_reuse == 1:
        assert uses.keys() == set(range(STEPS * BATCH))
    assert [path.name for path in pool.rglob(".writing-*")] == []
    indices = {path.name for path in pool.glob("*.index.json")}
    assert {path.with_suffix(".index.json").name for path in pool.glob("*.tar")} <= indices
    assert len(list(pool.rglob("*.png"))) in (0, len(uses) * VIEWS)
