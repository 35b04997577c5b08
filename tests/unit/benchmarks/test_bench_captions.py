"""The benchmark of captions, at a hundredth of its size."""

import json
from pathlib import Path

import pytest

from benchmarks.captions import COUNT_MIN, RESULT, caption_of, main, write_captions
from launcher.main import main as streamrep
from trainer.captions import load_captions
from trainer.config import CaptionsConfig


def test_it_measures_fresh_processes_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that indexes, then others that only start; nothing is left of the captions."""
    out, work = tmp_path / "out" / "captions.json", tmp_path / "work"
    work.mkdir()
    words = ["--count", str(COUNT_MIN), "--starts", "2", "--tickets", "50", "--folder", str(work)]
    code = main([*words, "--out", str(out)])
    result = json.loads(out.read_text())
    in_time = result["first_ticket_seconds_worst"] <= result["targets"]["first_ticket_seconds"]
    assert code == (0 if in_time and result["peak_bytes_worst"] <= 500_000_000 else 1)
    assert result["lines"] == COUNT_MIN
    for one in [result["index"], *result["starts"]]:
        assert one["captions"] == COUNT_MIN - COUNT_MIN // 20
        assert one["duplicates"] == COUNT_MIN // 20
        assert one["first_ticket_seconds"] > one["load_seconds"] > 0
        assert one["peak_bytes"] > 10_000_000
    assert max(one["load_seconds"] for one in result["starts"]) < result["index"]["load_seconds"]
    assert result["index_bytes"] > 8 * result["index"]["captions"]
    assert list(work.iterdir()) == []
    assert str(out) in capsys.readouterr().out


def test_captions_are_made_as_they_are_announced(tmp_path: Path) -> None:
    """A table as CC12M, and no duplicate but those that are meant."""
    path = tmp_path / "captions.tsv"
    write_captions(path, 1000)
    captions = load_captions(CaptionsConfig(source=str(path)))
    assert (len(captions), captions.counts.duplicates) == (950, 50)
    assert captions.texts[0] == caption_of(0)
    assert len({caption_of(number) for number in (*range(3000), 2**32, 2**64 - 1)}) == 3002


def test_too_few_captions_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Before any is made, and without touching the result that is checked in."""
    before = RESULT.exists()
    assert streamrep(["bench", "captions", "--count", "10"]) == 2
    assert f"expected at least {COUNT_MIN}" in capsys.readouterr().err
    assert RESULT.exists() == before
