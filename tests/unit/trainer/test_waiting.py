"""While the trainer waits, people are told why, and not too often."""

from typing import Any

import pytest

from trainer.feed.feed import FeedStatus
from trainer.waiting import WaitingNotice, why_waiting


def _status(**counts: int) -> FeedStatus:
    fields: dict[str, Any] = {
        "workers": 1,
        "groups_received": 0,
        "buffered": 0,
        "leased": 0,
        "wanted": 0,
        "dead_letters": 0,
    }
    return FeedStatus(**(fields | counts), refused={})


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"workers": 0}, "no generator is connected to tcp://x"),
        ({"leased": 3}, "1 generators hold 3 tickets"),
        ({}, "window is full"),
        ({"wanted": 2}, "ask for no tickets"),
    ],
)
def test_the_blocked_side_is_named(counts: dict[str, int], words: str) -> None:
    """Nobody there, somebody drawing, or no room."""
    assert words in why_waiting(_status(**counts), "tcp://x")


def test_failed_handshakes_are_named_while_nobody_is_there() -> None:
    """They are the likely reason; other refusals are not."""
    refused = {"handshake_keyless": 12, "duplicate": 3}
    status = FeedStatus(
        workers=0, groups_received=0, buffered=0, leased=0, wanted=0, dead_letters=0, refused=refused
    )
    assert "handshake_keyless': 12" in why_waiting(status, "tcp://x")
    assert "duplicate" not in why_waiting(status, "tcp://x")


def test_it_is_said_after_ten_seconds_then_every_thirty() -> None:
    """And again from the beginning for the next wait."""
    said: list[str] = []
    notice = WaitingNotice(lambda: _status(workers=0), "tcp://x", said.append)
    for seconds in (0, 5, 10, 20, 39, 40, 69, 70):
        notice(float(seconds))
    assert [line.split(" for ")[0] for line in said] == ["waited 10 s", "waited 40 s", "waited 70 s"]
    for seconds in (0, 9, 11):
        notice(float(seconds))
    assert len(said) == 4
