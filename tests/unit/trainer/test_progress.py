"""The progress of a run, on a terminal and elsewhere."""

import io
import os
import re

import pytest

from trainer.progress import Progress, duration, format_row


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_screen(text: str) -> list[str]:
    """What a terminal shows in the end: lines, each with its rewrites applied."""
    return [re.split(r"\r\x1b\[2K", line)[-1] for line in text.split("\n")]


ROW = {
    "step": 50,
    "loss": 4.56789,
    "loss_excess": 2.9,
    "images_per_second": 330.4,
    "generated_per_second": 31.26,
    "fresh_fraction": 0.094,
    "waiting_share": 0.004,
    "workers": 1,
    "recall_at_10": 0.123,
    "recall_at_10_untrained": 0.031,
}


def test_row_names_every_known_value() -> None:
    """In a fixed order, so that the eye finds each at its place."""
    assert format_row(ROW, 200, 95.0) == (
        "step 50/200 25% · 1m35s left · loss 4.568 (+2.900) · R@10 12.3% (untrained 3.1%) · 330 trained/s · "
        "31.3 generated/s · fresh 9% · waiting 0% · 1 worker"
    )


@pytest.mark.parametrize("missing", [{}, dict.fromkeys(ROW, None) | {"step": 3}])
def test_missing_and_null_values_are_left_out(missing: dict[str, object]) -> None:
    """A first row knows next to nothing."""
    assert format_row(missing, 10, None) in ("step 0/10 0%", "step 3/10 30%")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """Two units at most."""
    assert duration(seconds) == text


def test_terminal_shows_one_rewritten_line() -> None:
    """At most four a second, and always the last step."""
    stream, clock = Terminal(), Clock()
    progress = Progress(100, stream, clock=clock)
    for step in range(1, 101):
        clock.now += 0.05
        progress.update({"step": step})
    progress.close()
    text = stream.getvalue()
    assert 15 <= text.count("\r") <= 23
    assert on_screen(text) == ["step 100/100 100% · 0s left", ""]


def test_said_lines_stand_above_the_progress_line() -> None:
    """Neither is torn by the other."""
    stream = Terminal()
    progress = Progress(10, stream, clock=Clock())
    progress.update({"step": 1})
    progress.say("checkpoint written")
    progress.close()
    assert on_screen(stream.getvalue()) == ["checkpoint written", "step 1/10 10%", ""]


def test_line_never_reaches_the_terminals_last_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that wraps can't be rewritten."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 20)))
    stream = Terminal()
    Progress(200, stream, clock=Clock()).update(ROW)
    (shown,) = on_screen(stream.getvalue())
    assert len(shown) == 39
    assert shown.endswith("…")


def test_elsewhere_a_plain_line_each_ten_seconds() -> None:
    """A log file gets no control characters, and no line for every step."""
    stream, clock = io.StringIO(), Clock()
    progress = Progress(1000, stream, clock=clock)
    for step in range(1, 31):
        clock.now += 1.0
        progress.update({"step": step})
    progress.say("checkpoint written")
    progress.close()
    lines = stream.getvalue().split("\n")
    assert [line.split(" ")[1] for line in lines[:3]] == ["1/1000", "11/1000", "21/1000"]
    assert lines[3:] == ["checkpoint written", ""]
    assert "\r" not in stream.getvalue()


def test_time_left_counts_from_this_start_not_from_step_0() -> None:
    """A resumed run must not take the steps of an earlier process for its own speed."""
    stream, clock = Terminal(), Clock()
    progress = Progress(1000, stream, clock=clock)
    progress.update({"step": 900})
    clock.now = 10.0
    progress.update({"step": 910})
    assert "1m30s left" in stream.getvalue()


def test_last_evaluation_stays_on_the_line() -> None:
    """Rows between evaluations don't carry it."""
    stream, clock = Terminal(), Clock()
    progress = Progress(100, stream, clock=clock)
    progress.update({"step": 1, "recall_at_10": 0.5})
    clock.now = 1.0
    progress.update({"step": 2})
    assert "R@10 50.0%" in on_screen(stream.getvalue())[-1]


def test_a_stall_stands_behind_the_step_until_it_is_over() -> None:
    """On a terminal at once; time left is still counted from the first trained step."""
    stream, clock = Terminal(), Clock()
    progress = Progress(1000, stream, clock=clock)
    progress.stall("stands still: no worker yet", 900)
    assert on_screen(stream.getvalue()) == ["step 900/1000 90% · stands still: no worker yet"]
    clock.now = 50.0
    progress.stall("", 900)
    assert on_screen(stream.getvalue()) == ["step 900/1000 90%"]
    progress.update({"step": 901})
    clock.now = 60.0
    progress.update({"step": 911})
    assert on_screen(stream.getvalue()) == ["step 911/1000 91% · 1m29s left"]


def test_a_stall_writes_no_progress_line_elsewhere() -> None:
    """A log file gets the line that is said, and nothing twice."""
    stream = io.StringIO()
    Progress(1000, stream, clock=Clock()).stall("stands still: drawing", 3)
    assert stream.getvalue() == ""
