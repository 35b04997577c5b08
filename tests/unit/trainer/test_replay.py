"""A replay follows a ledger: the same groups, uses and order, from any step."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from protocol.errors import UserError
from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.errors import DeadLetterError
from trainer.ledger import Ledger
from trainer.plan import Plan
from trainer.sources.recorded import RecordedRun
from trainer.sources.replay import ReplaySource

PLAN = Plan(Captions([f"c{i}" for i in range(9)]), 0, GenerationSpec(views=2, size=8))
BATCHES = [
    [(0, 1), (3, 1)],
    [(1, 1), (0, 2)],
    [(3, 2), (2, 1)],
    [(2, 2), (3, 3)],  # nothing new
    [(0, 3), (4, 1)],
    [(5, 1), (1, 2)],
]


def _group(group_id: int, source: str = "online") -> DrawnGroup:
    return DrawnGroup(
        ticket=PLAN.ticket(group_id),
        images_NHWC=np.full((2, 8, 8, 3), group_id, np.uint8),
        source=source,
        worker="w",
        content="c",
        engine="e",
        digest=f"{group_id:016x}",
        arrived_seconds=0.0,
    )


def _record(folder: Path, source: str = "online") -> Path:
    ledger = Ledger(folder / "ledger.sqlite")
    for step, batch in enumerate(BATCHES, start=1):
        groups = tuple(_group(group_id, source) for group_id, _ in batch)
        ledger.record(Batch(step=step, groups=groups, uses=tuple(use for _, use in batch)))
    ledger.close()
    return folder


class OrderedFeed:
    """Two groups of room, in the order of the ids."""

    def __init__(self, ids: Iterator[int], lost: int = -1) -> None:
        self._ids = ids
        self._lost = lost
        self._out: set[int] = set()
        self.dead: dict[int, str] = {}

    def take(self, count: int) -> list[DrawnGroup]:
        taken = []
        while len(self._out) < 2 and len(taken) < count and (group_id := next(self._ids, None)) is not None:
            if group_id == self._lost:
                self.dead[group_id] = "gone"
                continue
            self._out.add(group_id)
            taken.append(_group(group_id))
        return taken

    def wait(self, seconds: float) -> None:
        raise AssertionError("nothing more would come")

    def trained(self, group_ids: list[int]) -> None:
        self._out.difference_update(group_ids)

    def dead_letters(self) -> dict[int, str]:
        return self.dead


@pytest.mark.parametrize("step", range(len(BATCHES)))
def test_batches_are_those_of_the_ledger_from_any_step_on(tmp_path: Path, step: int) -> None:
    """With room for a batch and no more; what is held is what comes again."""
    recorded = RecordedRun(_record(tmp_path), PLAN, len(BATCHES))
    feed = OrderedFeed(recorded.needed_after(step))
    source = ReplaySource(feed, recorded, step=step, batch_groups=2, stop=threading.Event())
    for later in range(step + 1, len(BATCHES) + 1):
        batch = source.next_batch(later)
        assert [(g.group_id, use) for g, use in zip(batch.groups, batch.uses, strict=True)] == BATCHES[
            later - 1
        ]
        source.trained(batch)
        again = {i for batch in BATCHES[later:] for i, _ in batch}
        held = {}
        for at, before in enumerate(BATCHES[:later], start=1):
            held |= {i: (i, use, at) for i, use in before if i in again}
        assert source.ring_contents() == sorted(held.values())
        assert source.ring_groups == len(held)
    recorded.close()


def test_a_lost_group_ends_the_replay(tmp_path: Path) -> None:
    """Going on without it would be another run."""
    recorded = RecordedRun(_record(tmp_path), PLAN, len(BATCHES))
    feed = OrderedFeed(recorded.needed_after(0), lost=3)
    source = ReplaySource(feed, recorded, step=0, batch_groups=2, stop=threading.Event())
    with pytest.raises(DeadLetterError, match="3 is lost: gone"):
        source.next_batch(1)
    recorded.close()


def test_what_is_not_this_runs_recording_is_refused(tmp_path: Path) -> None:
    """No ledger, too few steps, another seed, another caption."""
    with pytest.raises(UserError, match="a run with a ledger"):
        RecordedRun(tmp_path / "none", PLAN, 1)
    folder = _record(tmp_path)
    with pytest.raises(UserError, match="max_steps = 7 recorded steps, got 6"):
        RecordedRun(folder, PLAN, 7)
    with pytest.raises(UserError, match="the run's own plan"):
        RecordedRun(folder, Plan(PLAN.captions, 1, PLAN.spec), 5)
    db = sqlite3.connect(folder / "ledger.sqlite")
    assert json.loads(db.execute("SELECT seeds FROM groups").fetchone()[0]) == list(PLAN.ticket(0).seeds)
    # A group of a pool has its images' seeds, and is known for what it is.
    db.execute("UPDATE groups SET source = 'pool', seeds = '[null, 5]' WHERE group_id = 4")
    db.commit()
    recorded = RecordedRun(folder, PLAN, 5)
    assert [recorded.is_pools(group_id) for group_id in range(6)] == [False] * 4 + [True, False]
    recorded.close()
    db.execute("UPDATE groups SET caption_id = 5 WHERE group_id = 4")
    db.commit()
    db.close()
    with pytest.raises(UserError, match="with caption 5 for group 4"):
        RecordedRun(folder, PLAN, 5)
