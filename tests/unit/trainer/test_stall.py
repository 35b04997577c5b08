"""Each reason why no batch can be formed, from the facts that make it so."""

from typing import Any

import pytest

from trainer.feed.feed import FeedStatus
from trainer.stall import Stall, Want, diagnose, explain

DRAWING: dict[str, Any] = {"leased": 3, "wanted": 1, "oldest_lease_seconds": 7.4}


def _status(**fields: Any) -> FeedStatus:
    """One worker, joined and beating, with no ticket."""
    usual: dict[str, Any] = {
        "workers": 1,
        "groups_received": 0,
        "buffered": 0,
        "leased": 0,
        "wanted": 0,
        "dead_letters": 0,
        "refused": {},
        "joined": 1,
        "connected": 1,
        "heard_seconds_ago": 0.5,
    }
    return FeedStatus(**(usual | fields))


def _want(**fields: Any) -> Want:
    usual: dict[str, Any] = {"step": 9, "needed": 8, "fresh": 2}
    return Want(**(usual | fields))


GONE: dict[str, Any] = {"workers": 0, "connected": 0}

CASES: list[tuple[Stall, dict[str, Any], dict[str, Any], str]] = [
    (
        Stall.NO_WORKER_YET,
        GONE | {"joined": 0, "heard_seconds_ago": None},
        {},
        "joined at tcp://x; start one",
    ),
    (
        Stall.NO_WORKER_YET,
        GONE | {"joined": 0, "refused": {"handshake_wrong_key": 12, "duplicate": 1}},
        {},
        "joined at tcp://x (refused: {'handshake_wrong_key': 12}); start one",
    ),
    (Stall.NO_WORKER_NOW, GONE, {}, "every generator has left"),
    (Stall.WORKERS_SILENT, GONE | {"left_silently": True, "heard_seconds_ago": 12.0}, {}, "heard for 12 s"),
    (Stall.WORKERS_SILENT, DRAWING | {"heard_seconds_ago": 3.1}, {}, "heard for 3 s"),
    (
        Stall.BUILDING_ENGINES,
        {"workers": 0, "connected": 2},
        {},
        "2 generators are connected and still build",
    ),
    (Stall.NO_CREDIT, {"wanted": 4}, {}, "1 generators are ready but ask for no tickets"),
    (Stall.WINDOW_FULL, {}, {}, "raise stream.window_groups"),
    (Stall.DRAWING, DRAWING, {}, "2 of 8 groups came; 3 tickets are being drawn, the oldest for 7 s"),
    (Stall.DRAWING, DRAWING, {"min_fresh": 4, "reusable": 5}, "bottleneck"),
    (Stall.MIN_FRESH, DRAWING, {"min_fresh": 4, "reusable": 6}, "asks for 4 fresh groups and 2 have come"),
    (Stall.REUSE_LIMIT, DRAWING, {"reusable": 5, "barred": 9}, "2 of 8 groups are fresh and 5 may be used"),
    (Stall.NO_WORKER_NOW, GONE, {"reusable": 5, "barred": 9}, "every generator has left"),
    (Stall.DECODING, GONE, {"from_pool": True}, "2 of 8 groups are decoded; raise pool.processes"),
    (
        Stall.OTHER_RANKS,
        DRAWING,
        {"others": ((1, Stall.DRAWING), (3, Stall.NO_CREDIT))},
        "waits for rank 1 (drawing), rank 3 (no_credit)",
    ),
]


@pytest.mark.parametrize(("stall", "status", "want", "words"), CASES)
def test_the_reason_is_the_one_nearest_to_its_cure(
    stall: Stall, status: dict[str, Any], want: dict[str, Any], words: str
) -> None:
    """A side that is not there comes before one that is slow, and the limits before the plain wait."""
    found = diagnose(_want(**want), _status(**status))
    assert found is stall
    assert words in explain(found, _want(**want), _status(**status), "tcp://x")


def test_every_reason_has_its_sentence() -> None:
    """One line each; checkpoint and pause are not diagnosed but told."""
    for stall in Stall:
        text = explain(stall, _want(), _status(), "tcp://x")
        assert text
        assert "\n" not in text
    assert set(Stall) - {stall for stall, *_ in CASES} == {Stall.CHECKPOINT, Stall.PAUSED}
