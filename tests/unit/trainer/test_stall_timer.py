"""When a stall is said, and which reason its seconds count for."""

from itertools import pairwise

import pytest

from trainer.stall import Stall
from trainer.stall_timer import StallTimer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _said(timer: StallTimer, clock: Clock, seconds: int, reason: Stall, began: float) -> list[float]:
    """Moments at which a stall looked at each second would be told, from its beginning."""
    moments = []
    for _ in range(seconds):
        if timer.blocked(reason):
            moments.append(clock.now - began)
        clock.now += 1.0
    return moments


def test_a_stall_is_said_after_five_seconds_and_then_ever_more_rarely() -> None:
    """Pauses of 10 s, 20 s, 40 s; the next stall begins anew."""
    clock = Clock()
    timer = StallTimer(clock)
    assert _said(timer, clock, 100, Stall.DRAWING, 100.0) == [5, 15, 35, 75]
    assert timer.lasted == 100.0
    assert timer.over()
    assert timer.lasted == 0.0
    assert _said(timer, clock, 10, Stall.DRAWING, clock.now) == [5]


def test_an_hour_is_said_every_five_minutes() -> None:
    """Pauses stop growing at 300 s."""
    clock = Clock()
    moments = _said(StallTimer(clock), clock, 3600, Stall.NO_WORKER_YET, 100.0)
    assert [after - before for before, after in pairwise(moments)][-3:] == [300] * 3


def test_a_short_wait_is_never_said() -> None:
    """Under five seconds, however often."""
    clock = Clock()
    timer = StallTimer(clock)
    for _ in range(10):
        assert _said(timer, clock, 5, Stall.DRAWING, clock.now) == []
        assert not timer.over()
    assert timer.seconds == {"drawing": 50.0}


def test_a_new_reason_is_said_soon() -> None:
    """The worker joins long before the next line is due: five seconds after the last one at the earliest."""
    clock = Clock()
    timer = StallTimer(clock)
    assert _said(timer, clock, 37, Stall.NO_WORKER_YET, 100.0) == [5, 15, 35]
    assert _said(timer, clock, 13, Stall.BUILDING_ENGINES, 100.0) == [40]


def test_seconds_count_for_the_reason_seen_at_their_beginning() -> None:
    """And add up to the time stood still; time between stalls counts for nothing."""
    clock = Clock()
    timer = StallTimer(clock)
    for reason, seconds in ((Stall.NO_WORKER_YET, 3.0), (Stall.BUILDING_ENGINES, 2.0), (Stall.DRAWING, 1.5)):
        timer.blocked(reason)
        clock.now += seconds
    timer.over()
    clock.now += 50.0
    timer.blocked(Stall.DRAWING)
    clock.now += 1.0
    timer.over()
    assert timer.seconds == pytest.approx({"no_worker_yet": 3.0, "building_engines": 2.0, "drawing": 2.5})
