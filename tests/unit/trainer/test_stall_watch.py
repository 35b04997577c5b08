"""A stall reaches the log, the progress line and the metrics; a short wait reaches none of them."""

import time
from typing import Any

from trainer.feed.feed import FeedStatus
from trainer.stall import Stall, Want
from trainer.stall_timer import StallTimer
from trainer.stall_watch import StallWatch

NOBODY = FeedStatus(
    workers=0, groups_received=0, buffered=0, leased=0, wanted=4, dead_letters=0, refused={"header": 1}
)


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stalls: list[tuple[str, int]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def stall(self, text: str, step: int) -> None:
        self.stalls.append((text, step))


class Clock:
    """Runs a hundred times as fast as the real one, so that a test of seconds takes none."""

    def __call__(self) -> float:
        return 100 * time.monotonic()


class Stepped:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _watch(clock: Any) -> tuple[StallWatch, Screen, list[dict[str, Any]]]:
    screen, rows = Screen(), list[dict[str, Any]]()
    watch = StallWatch(lambda: NOBODY, lambda: "tcp://x", screen, rows.append, timer=StallTimer(clock))
    return watch, screen, rows


def test_a_stall_is_told_in_three_places_and_so_is_its_end() -> None:
    """The row carries the reason, its seconds, and the facts that it was found from."""
    clock = Stepped()
    watch, screen, rows = _watch(clock)
    for clock.now in (0.0, 2.0, 6.0, 8.0):
        watch.waiting(Want(step=3, needed=8, fresh=1))
    assert len(screen.lines) == 1
    assert screen.stalls == [("stands still: no worker yet", 2)]
    [row] = rows
    assert (row["step"], row["stall"], row["stall_seconds"]) == (2, "no_worker_yet", 6.0)
    assert row["stalls"] == {"no_worker_yet": 6.0}
    assert (row["fresh_groups"], row["needed_groups"], row["refused"]) == (1, 8, {"header": 1})
    assert "loss" not in row
    watch.over()
    assert screen.stalls[-1] == ("", 2)
    assert len(screen.lines) == 2
    assert watch.seconds == {"no_worker_yet": 8.0}


def test_a_short_wait_and_a_stop_say_nothing() -> None:
    """Three seconds are not worth a line, and a run that was stopped does not go on."""
    clock = Stepped()
    watch, screen, rows = _watch(clock)
    watch.waiting(Want(step=3, needed=8, fresh=1))
    clock.now = 3.0
    watch.over()
    assert (screen.lines, screen.stalls, rows) == ([], [], [])
    for clock.now in (4.0, 10.0):
        watch.waiting(Want(step=4, needed=8, fresh=1))
    watch.over(goes_on=False)
    assert len(screen.lines) == 1


def test_a_checkpoint_that_takes_long_is_told_while_it_is_written() -> None:
    """By a thread, since the one that writes can't look at the clock."""
    watch, screen, rows = _watch(Clock())
    with watch.writing_checkpoint(7):
        deadline = time.monotonic() + 30
        while not rows and time.monotonic() < deadline:
            time.sleep(0.01)
    assert [(row["step"], row["stall"]) for row in rows] == [(7, "checkpoint")]
    assert screen.stalls[-1] == ("", 7)
    assert watch.seconds["checkpoint"] > 5


def test_the_standstill_is_left_for_other_threads_from_its_first_moment() -> None:
    """Before people are told, as an object that later looks replace and never change."""
    clock = Stepped()
    watch, _, _ = _watch(clock)
    assert watch.standstill.reason is None
    seen = []
    for clock.now in (0.0, 2.0):
        watch.waiting(Want(step=3, needed=8, fresh=1))
        seen.append(watch.standstill)
    clock.now = 3.0
    watch.over()
    seen.append(watch.standstill)
    assert [(one.reason, one.lasted) for one in seen] == [
        (Stall.NO_WORKER_YET, 0.0),
        (Stall.NO_WORKER_YET, 2.0),
        (None, 0.0),
    ]
    assert [dict(one.seconds) for one in seen] == [
        {},
        {"no_worker_yet": 2.0},
        {"no_worker_yet": 3.0},
    ]
    assert seen[1].want.step == 3
