"""The ledger holds exactly the trainings behind the weights."""

import json
import sqlite3
from pathlib import Path

import numpy as np

from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.ledger import Ledger
from trainer.plan import Plan

PLAN = Plan(Captions(["a", "b", "c"]), 5, GenerationSpec(views=2, size=8))


def _group(group_id: int) -> DrawnGroup:
    return DrawnGroup(
        ticket=PLAN.ticket(group_id),
        images_NHWC=np.zeros((2, 8, 8, 3), np.uint8),
        source="online",
        worker="w",
        content="c",
        engine="e",
        digest=f"{group_id:016x}",
        arrived_seconds=0.0,
    )


def _batch(step: int, ids: list[int], uses: list[int]) -> Batch:
    return Batch(step=step, groups=tuple(_group(i) for i in ids), uses=tuple(uses))


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def _filled(path: Path) -> Ledger:
    ledger = Ledger(path)
    ledger.record(_batch(1, [0, 1], [1, 1]))
    ledger.record(_batch(2, [2, 0], [1, 2]))
    ledger.record(_batch(3, [3, 1], [1, 2]))
    return ledger


def test_every_use_is_a_row_and_every_group_can_be_redrawn(tmp_path: Path) -> None:
    """Seeds and guidance of each view, digest of the pixels, worker and engine."""
    path = tmp_path / "ledger.sqlite"
    _filled(path).close()
    assert _rows(path, "SELECT group_id, step, slot, use FROM uses ORDER BY step, slot") == [
        (0, 1, 0, 1),
        (1, 1, 1, 1),
        (2, 2, 0, 1),
        (0, 2, 1, 2),
        (3, 3, 0, 1),
        (1, 3, 1, 2),
    ]
    ticket = PLAN.ticket(3)
    [(caption, first_view, seeds, guidance, digest)] = _rows(
        path,
        "SELECT caption, first_view, seeds, guidance, digest FROM groups JOIN captions USING (caption_id)"
        " WHERE group_id = 3",
    )
    assert (caption, first_view, digest) == (ticket.caption, 2, f"{3:016x}")
    assert tuple(json.loads(str(seeds))) == ticket.seeds
    assert tuple(json.loads(str(guidance))) == ticket.guidance


def test_a_resume_forgets_what_is_newer_than_its_checkpoint(tmp_path: Path) -> None:
    """Uses after the step go, and groups that no use is left of."""
    path = tmp_path / "ledger.sqlite"
    ledger = _filled(path)
    ledger.trim(2, {7: "failed"})
    ledger.record(_batch(3, [3, 2], [1, 2]))
    ledger.close()
    assert _rows(path, "SELECT group_id, use FROM uses WHERE step = 3 ORDER BY slot") == [(3, 1), (2, 2)]
    assert _rows(path, "SELECT group_id FROM groups ORDER BY group_id") == [(0,), (1,), (2,), (3,)]
    assert _rows(path, "SELECT * FROM dead_letters") == [(7, "failed")]


def test_switches_outlive_a_resume_and_pauses_do_not(tmp_path: Path) -> None:
    """A mode waits for its step again; one that is chosen anew takes the place of those that would follow."""
    path = tmp_path / "ledger.sqlite"
    ledger = _filled(path)
    ledger.record_switch(1, "online", "run file")
    ledger.record_switch(2, "offline", "ctl")
    ledger.record_switch(3, "pause", "ctl")
    ledger.record_switch(3, "mixed", "ctl")
    ledger.trim(1, {})
    assert ledger.modes_after(1) == {2: "offline", 3: "mixed"}
    assert ledger.modes_after(2) == {3: "mixed"}
    assert _rows(path, "SELECT setting FROM switches WHERE step = 3") == [("mixed",)]
    ledger.record_switch(2, "online", "ctl")
    ledger.close()
    assert _rows(path, "SELECT step, setting, origin FROM switches ORDER BY step") == [
        (1, "online", "run file"),
        (2, "online", "ctl"),
    ]


def test_readers_may_look_while_a_run_writes(tmp_path: Path) -> None:
    """WAL mode: a reader sees whole steps only, and does not block."""
    path = tmp_path / "ledger.sqlite"
    ledger = _filled(path)
    assert _rows(path, "SELECT COUNT(*) FROM uses") == [(6,)]
    ledger.flush()
    ledger.record(_batch(4, [4, 2], [1, 2]))
    assert _rows(path, "SELECT COUNT(*) FROM uses") == [(8,)]
    ledger.close()
