"""The wait for groups: of one trainer alone, and of a rank among others."""

import threading
import time
from typing import Any, NoReturn

import pytest

from protocol.errors import StreamrepError
from trainer.batch import DrawnGroup
from trainer.errors import FeedFailedError, StopRequestedError
from trainer.lockstep import Waits
from trainer.sources.wait import Wait
from trainer.stall import Stall, Want

LACKING = Want(step=3, needed=8, fresh=2)
OTHERS: Waits = ((1, Stall.DRAWING),)


class IdleFeed:
    """Counts how often it is waited for; nothing ever comes."""

    def __init__(self) -> None:
        self.waits = 0

    def take(self, count: int) -> list[DrawnGroup]:
        return []

    def wait(self, seconds: float) -> None:
        self.waits += 1
        time.sleep(0.01)

    def trained(self, group_ids: list[int]) -> None:
        pass

    def dead_letters(self) -> dict[int, str]:
        return {}


class Noted:
    """A watch that keeps what it is told."""

    def __init__(self) -> None:
        self.wants: list[Want] = []
        self.ends: list[bool] = []

    def waiting(self, want: Want) -> None:
        self.wants.append(want)

    def over(self, *, goes_on: bool = True) -> None:
        self.ends.append(goes_on)


class Meetings:
    """A lockstep whose other ranks do as the test says, meeting after meeting."""

    def __init__(self, *others: Waits) -> None:
        self.others = list(others)
        self.told: list[Want | None] = []

    def meet(self, want: Want | None) -> Waits:
        self.told.append(want)
        own = () if want is None else ((0, Stall.NO_CREDIT),)
        return own + self.others.pop(0)

    def fail(self, error: StreamrepError) -> NoReturn:
        self.told.append(None)
        raise error


def _wait(lockstep: Any = None) -> tuple[Wait, IdleFeed, Noted, threading.Event]:
    feed, watch, stop = IdleFeed(), Noted(), threading.Event()
    return Wait(feed, stop, watch, lockstep), feed, watch, stop


def test_alone_a_trainer_waits_for_its_own_groups() -> None:
    """And the time counts; without a wait none does."""
    wait, feed, watch, _ = _wait()
    wait.until(lambda: None, 3)
    assert (wait.seconds, feed.waits, watch.wants) == (0.0, 0, [])
    answers: list[Want | None] = [LACKING, LACKING, None]
    wait.until(lambda: answers.pop(0), 3)
    assert feed.waits == 2
    assert wait.seconds >= 0.02
    assert watch.wants == [LACKING, LACKING]
    assert watch.ends == [True, True]


def test_alone_a_stop_is_heard_while_waiting_only() -> None:
    """A batch that is there is trained on; the loop looks before the next one."""
    wait, _, watch, stop = _wait()
    stop.set()
    wait.until(lambda: None)
    with pytest.raises(StopRequestedError):
        wait.until(lambda: LACKING)
    assert watch.ends == [True, False]


def test_a_rank_that_lacks_nothing_meets_the_others_until_they_can_go_on() -> None:
    """It says for whom it waits, and never waits for its own feed, which may bring nothing for long."""
    meetings = Meetings(OTHERS, OTHERS, ())
    wait, feed, watch, _ = _wait(meetings)
    wait.until(lambda: None, 3)
    assert feed.waits == 0
    assert watch.wants == [Want(step=3, needed=0, fresh=0, others=OTHERS)] * 2
    assert meetings.told == [None] * 3


def test_a_rank_that_lacks_groups_says_so_and_is_asked_again() -> None:
    """Its own want comes before that of others."""
    answers: list[Want | None] = [LACKING, None]
    meetings = Meetings(OTHERS, ())
    wait, feed, watch, _ = _wait(meetings)
    wait.until(lambda: answers.pop(0), 3)
    assert feed.waits == 1
    assert watch.wants == [LACKING]
    assert meetings.told == [LACKING, None]


def test_a_rank_whose_source_fails_tells_the_others() -> None:
    """In the place of a meeting, so that none of them waits for it."""
    meetings = Meetings()
    wait, _, watch, _ = _wait(meetings)

    def lacks() -> Want | None:
        raise FeedFailedError("gone")

    with pytest.raises(FeedFailedError, match="gone"):
        wait.until(lacks)
    assert len(meetings.told) == 1
    assert watch.ends == [False]
