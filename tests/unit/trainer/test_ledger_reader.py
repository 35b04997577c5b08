"""Questions to a ledger, against plain loops over the same trainings."""

import os
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.errors import UserError
from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.errors import StopRequestedError
from trainer.ledger import Ledger
from trainer.ledger_questions import QUESTIONS, Question
from trainer.ledger_reader import LedgerReader
from trainer.plan import Plan

PLAN = Plan(Captions(["a dog", "a cat", "fire"]), 5, GenerationSpec(views=2, size=8, guidance=(2.0, 3.5)))
STEPS = [[(0, 1), (1, 1)], [(2, 1), (0, 2)], [(3, 1), (1, 2)], [(4, 1), (0, 3)], [(5, 1), (3, 2)]]
"""(group_id, use) of every slot of every step."""


def _group(group_id: int) -> DrawnGroup:
    return DrawnGroup(
        ticket=PLAN.ticket(group_id),
        images_NHWC=np.zeros((2, 8, 8, 3), np.uint8),
        source="online",
        worker=f"worker-{group_id % 2}",
        content="content",
        engine="new" if group_id > 3 else "old",
        digest=f"{group_id:016x}",
        arrived_seconds=0.0,
    )


def _record(ledger: Ledger, step: int) -> None:
    slots = STEPS[step - 1]
    groups = tuple(_group(group_id) for group_id, _ in slots)
    ledger.record(Batch(step=step, groups=groups, uses=tuple(use for _, use in slots)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of five steps, closed."""
    path = tmp_path / "ledger.sqlite"
    with closing(Ledger(path)) as ledger:
        for step in range(1, len(STEPS) + 1):
            _record(ledger, step)
        ledger.record_dead_letters({6: "failed 2 times, last: no such thing"})
    return path


@pytest.fixture
def reader(path: Path) -> Iterator[LedgerReader]:
    with closing(LedgerReader(path)) as reader:
        yield reader


def _ask(reader: LedgerReader, name: str, **filters: Any) -> list[dict[str, Any]]:
    answer = reader.ask(QUESTIONS[name], **filters)
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]


def _ask_sql(reader: LedgerReader, sql: str) -> None:
    reader.ask(Question(text="", sql=sql))


TRAININGS = [
    (step, slot, group_id, use)
    for step, slots in enumerate(STEPS, 1)
    for slot, (group_id, use) in enumerate(slots)
]


def test_summary(reader: LedgerReader) -> None:
    """Every number that a person asks first."""
    assert {row["name"]: row["value"] for row in _ask(reader, "summary")} == {
        "steps": 5,
        "captions": 3,
        "groups": 6,
        "images": 12,
        "uses of groups": 10,
        "mean uses": round(10 / 6, 3),
        "workers": 2,
        "engines": 2,
        "dead letters": 1,
    }


def test_uses_are_a_histogram(reader: LedgerReader) -> None:
    """Groups by how often they were trained on."""
    uses = Counter(Counter(group_id for _, _, group_id, _ in TRAININGS).values())
    assert [(row["uses"], row["groups"]) for row in _ask(reader, "uses")] == sorted(uses.items())
    assert sum(row["share"] for row in _ask(reader, "uses")) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "key"), [("captions", "caption"), ("workers", "worker"), ("engines", "engine")]
)
def test_groups_and_uses_of_each(reader: LedgerReader, name: str, key: str) -> None:
    """Captions, workers and engines."""
    groups: dict[str, set[int]] = defaultdict(set)
    uses: Counter[str] = Counter()
    steps: dict[str, list[int]] = defaultdict(list)
    for step, _, group_id, _ in TRAININGS:
        group = _group(group_id)
        label = {"caption": group.ticket.caption, "worker": group.worker, "engine": group.engine}[key]
        groups[label].add(group_id)
        uses[label] += 1
        steps[label].append(step)
    rows = {row[key]: row for row in _ask(reader, name)}
    assert {label: row["groups"] for label, row in rows.items()} == {k: len(v) for k, v in groups.items()}
    assert {label: row["uses"] for label, row in rows.items()} == dict(uses)
    if name == "engines":
        assert {label: row["a_group"] for label, row in rows.items()} == {
            k: min(v) for k, v in groups.items()
        }
        assert rows["old"]["content"] == "content"
    else:
        spans = {label: (row["first_step"], row["last_step"]) for label, row in rows.items()}
        assert spans == {label: (min(some), max(some)) for label, some in steps.items()}


def test_trainings_and_groups_of_one_group_or_caption(reader: LedgerReader) -> None:
    """Filters leave what is asked for, the limit what fits."""
    rows = _ask(reader, "trainings")
    assert [(r["step"], r["slot"], r["group_id"], r["use"]) for r in rows] == TRAININGS
    assert [r["step"] for r in _ask(reader, "trainings", group_id=0)] == [1, 2, 4]
    caption_id = PLAN.ticket(0).caption_id
    of_caption = [i for i in range(6) if PLAN.ticket(i).caption_id == caption_id]
    assert [r["group_id"] for r in _ask(reader, "groups", caption_id=caption_id)] == of_caption
    assert [r["group_id"] for r in _ask(reader, "groups", limit=4)] == [0, 1, 2, 3]
    [row] = _ask(reader, "groups", group_id=3)
    assert (row["views"], row["first_view"], row["uses"]) == (2, 2, 2)
    assert (row["first_step"], row["last_step"], row["digest"]) == (3, 5, f"{3:016x}")
    assert _ask(reader, "groups", group_id=3, caption_id=PLAN.ticket(4).caption_id) == []


def test_a_group_comes_back_as_its_ticket(reader: LedgerReader) -> None:
    """All that drawing needs, equal to the plan's."""
    recorded = reader.group(5)
    assert recorded is not None
    assert recorded.ticket == PLAN.ticket(5)
    assert (recorded.worker, recorded.engine, recorded.digest) == ("worker-1", "new", f"{5:016x}")
    assert reader.group(6) is None
    assert reader.dead_letter(6) == "failed 2 times, last: no such thing"
    assert reader.dead_letter(5) is None
    assert reader.extent() == (6, 0, 5)


def test_reading_leaves_the_folder_of_a_finished_run_as_it_was(path: Path) -> None:
    """Not a byte and not a file more, so it may lie on a medium that can't be written."""
    before = (path.read_bytes(), sorted(os.listdir(path.parent)))
    with closing(LedgerReader(path)) as reader:
        assert len(_ask(reader, "trainings")) == 10
        with pytest.raises(UserError, match=r"readonly|read-only"):
            _ask_sql(reader, "DELETE FROM uses")
    assert (path.read_bytes(), sorted(os.listdir(path.parent))) == before


def test_a_running_trainer_is_read_to_its_last_step(tmp_path: Path) -> None:
    """What is still in the log beside the file; and neither waits for the other."""
    path = tmp_path / "ledger.sqlite"
    with closing(Ledger(path)) as ledger:
        _record(ledger, 1)
        with closing(LedgerReader(path)) as reader:
            rows = reader.ask(QUESTIONS["trainings"]).rows
            next(rows)
            _record(ledger, 2)
            ledger.flush()
            assert len(list(rows)) == 1
            assert len(_ask(reader, "trainings")) == 4
            _record(ledger, 3)
            assert len(_ask(reader, "trainings")) == 6


def test_a_ledger_of_a_killed_trainer_is_whole(tmp_path: Path) -> None:
    """Its last steps are in the log that it left."""
    live, dead = tmp_path / "live", tmp_path / "dead"
    live.mkdir()
    with closing(Ledger(live / "ledger.sqlite")) as ledger:
        for step in range(1, len(STEPS) + 1):
            _record(ledger, step)
        shutil.copytree(live, dead)
    with closing(LedgerReader(dead / "ledger.sqlite")) as reader:
        assert len(_ask(reader, "trainings")) == 10


def test_what_is_no_ledger_is_one_line(tmp_path: Path) -> None:
    """Nothing there, another file, another database."""
    with pytest.raises(UserError, match=r"no ledger\.sqlite"):
        LedgerReader(tmp_path / "ledger.sqlite")
    text = tmp_path / "text.sqlite"
    text.write_text("no database " * 100)
    with pytest.raises(UserError, match="file is not a database"):
        LedgerReader(text)
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (a)")
    with pytest.raises(UserError, match="no such table: groups"):
        LedgerReader(other)


def test_a_long_question_can_be_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is not answered by a line about the file."""
    monkeypatch.setattr("trainer.ledger_reader.INTERRUPT_OPCODES", 1)
    asked = iter([False] * 100)
    with closing(LedgerReader(path, lambda: next(asked, True))) as reader, pytest.raises(StopRequestedError):
        _ask_often(reader)


def _ask_often(reader: LedgerReader) -> None:
    for _ in range(20):
        _ask(reader, "captions")
