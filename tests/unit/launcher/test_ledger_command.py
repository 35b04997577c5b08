"""`streamrep ledger`: tables, CSV and JSON of the same answers."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.answers import WIDTH_MAX, write_answer
from launcher.main import main
from launcher.run_file import load, to_tables
from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.ledger import Ledger
from trainer.ledger_reader import Answer
from trainer.plan import Plan
from trainer.run_folder import write_json

PLAN = Plan(Captions([f"caption {i}" for i in range(30)]), 5, GenerationSpec(views=2, size=8))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A run of 30 groups that is called `mine`; its ledger is open as long as the test."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    write_json(folder / "run.json", to_tables(load(None)))
    groups = tuple(
        DrawnGroup(
            ticket=PLAN.ticket(group_id),
            images_NHWC=np.zeros((2, 8, 8, 3), np.uint8),
            source="online",
            worker="w",
            content="c",
            engine="e",
            digest="0" * 16,
            arrived_seconds=0.0,
        )
        for group_id in range(30)
    )
    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        ledger.record(Batch(step=1, groups=groups, uses=(1,) * 30))
        yield "mine"


def _answer(rows: list[tuple[Any, ...]], *columns: str) -> Answer:
    return Answer(columns=columns, rows=iter(rows))


def _written(answer: Answer, form: str, limit: int | None = None) -> str:
    out = io.StringIO()
    write_answer(answer, form, out, limit)
    return out.getvalue()


def test_a_run_is_found_by_folder_and_by_name(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same answer, as a table by default."""
    assert main(["ledger", run]) == 0
    by_name = capsys.readouterr().out
    assert main(["ledger", f"runs/{run}", "summary"]) == 0
    assert capsys.readouterr().out == by_name
    assert [line.split() for line in by_name.splitlines()][3] == ["groups", "30"]


def test_csv_and_json_hold_every_row(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Read back by other libraries; a limit leaves the first."""
    assert main(["ledger", run, "groups", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["group_id"] for row in rows] == list(range(30))
    assert [row["caption"] for row in rows] == [PLAN.ticket(i).caption for i in range(30)]
    assert main(["ledger", run, "groups", "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert table == [{key: str(value) for key, value in row.items()} for row in rows]
    assert main(["ledger", run, "groups", "--format", "csv", "--limit", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["ledger", run, "groups", "--format", "json", "--caption", " caption 7 "]) == 0
    assert [row["caption"] for row in json.loads(capsys.readouterr().out)] == ["caption 7"]
    assert main(["ledger", run, "trainings", "--format", "json", "--group", "99"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_table_shows_twenty_rows_and_says_so(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them where that is asked for."""
    assert main(["ledger", run, "groups"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "... the first 20 rows; --limit 0 shows all"
    assert main(["ledger", run, "groups", "--limit", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 31


def test_a_table_is_aligned_and_moves_no_cursor() -> None:
    """Numbers to the right, texts to the left, control characters spelt out, long texts shortened."""
    rows = [("a\x1b[2J\n", 5), ("x" * 100, 1234)]
    lines = _written(_answer(rows, "caption", "n"), "table").splitlines()
    assert lines[0] == "caption" + " " * (WIDTH_MAX - 7) + "     n"
    assert lines[1] == r"a\x1b[2J\n".ljust(WIDTH_MAX) + "     5"
    assert lines[2] == "x" * (WIDTH_MAX - 1) + "…  1234"
    assert _written(_answer([], "a", "b"), "table") == "a  b\n"


def test_csv_and_json_keep_whatever_a_caption_holds() -> None:
    """Quotes, line ends, other scripts."""
    text = 'say "hi",\nかな\x1b'
    rows = [(text, 2**62)]
    assert list(csv.reader(io.StringIO(_written(_answer(rows, "c", "n"), "csv"), newline=""))) == [
        ["c", "n"],
        [text, str(2**62)],
    ]
    assert json.loads(_written(_answer(rows, "c", "n"), "json")) == [{"c": text, "n": 2**62}]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nothing"], "no such folder"),
        (["."], "a folder without run.json"),
        (["mine", "prices"], "invalid choice"),
        (["mine", "--limit", "-1"], "expected an integer >= 0"),
        (["mine", "uses", "--group", "1"], "uses is about all groups"),
    ],
)
def test_bad_words_are_one_line(
    run: str, words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, nothing on stdout."""
    assert main(["ledger", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err


def test_a_reader_that_has_seen_enough_ends_it_quietly(run: str, repository: Path) -> None:
    """As `| head` does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "ledger", run, "groups", "--format", "csv"],
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(60), process.stderr.read()) == (0, b"")
    process.stderr.close()
