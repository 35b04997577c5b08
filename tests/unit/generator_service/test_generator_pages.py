"""What /metrics and /healthz say of a generator."""

import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from generator_service.channel import DrawnGroup, FailedDraw
from generator_service.conversation import Conversation, Vitals, WorkerFacts
from generator_service.link_status import LinkStatus, observe
from generator_service.pages import families, health, show
from generator_service.tally import Tally
from monitoring.exposition import render
from protocol import PROTOCOL_VERSION
from protocol.generation import GenerationSpec
from protocol.messages import Welcome

FACTS = WorkerFacts(worker="w", device="cpu: plain", weights="d")
STATUS = LinkStatus(
    at=100.0,
    connected=1,
    equipped=True,
    drawing_seconds=2.0,
    batch_seconds=3.0,
    groups_sent=8,
    malformed={"session": 2},
)
Parse = Callable[[str], dict[str, Any]]


def _tally() -> Tally:
    tally = Tally()
    images = np.full((4, 8, 8, 3), [3, 4, 5], np.uint8)
    images[1:, 7, 7, 2] = 6
    drawn = DrawnGroup(rank=0, group_id=1, images_NHWC=images, draw_seconds=0.1)
    tally.count([drawn, drawn, FailedDraw(rank=0, group_id=2, reason="bad")], 0.2)
    tally.count([drawn], 30.0)
    return tally


def test_every_number(parse_exposition: Parse) -> None:
    """Images of drawn groups, failures apart, batches by their time."""
    parsed = parse_exposition(render(families(FACTS, STATUS, _tally().drawn())))
    plain = {
        name.removeprefix("streamrep_generator_"): next(iter(family.samples.values()))
        for name, family in parsed.items()
        if family.kind != "histogram" and len(family.samples) == 1
    }
    assert plain == {
        "info": 1,
        "images_drawn_total": 12,
        "failed_groups_total": 1,
        "constant_images_total": 3,
        "groups_sent_total": 8,
        "drawing_seconds": 2.0,
        "connected": 1,
    }
    malformed = parsed["streamrep_generator_malformed_total"].samples
    assert malformed["streamrep_generator_malformed_total", frozenset({("reason", "session")})] == 2
    assert malformed["streamrep_generator_malformed_total", frozenset({("reason", "header")})] == 0
    batches = parsed["streamrep_generator_batch_seconds"].samples
    name = "streamrep_generator_batch_seconds"
    assert batches[f"{name}_count", frozenset()] == 2
    assert batches[f"{name}_sum", frozenset()] == pytest.approx(30.2)
    assert batches[f"{name}_bucket", frozenset({("le", "0.25")})] == 1
    assert batches[f"{name}_bucket", frozenset({("le", "60.0")})] == 2


@pytest.mark.parametrize(
    ("changes", "now", "status", "words"),
    [
        ({}, 100.0, "healthy", "drawing"),
        ({"drawing_seconds": 0.0}, 100.0, "healthy", "waits for tickets"),
        ({"equipped": False}, 100.0, "healthy", "building the engine"),
        ({"connected": 0, "lost_seconds": 60.0}, 100.0, "healthy", "looking for the trainer"),
        ({"connected": 0, "lost_seconds": 60.1}, 100.0, "stalled", "no trainer answers since 60 s"),
        ({"drawing_seconds": 60.0}, 100.0, "healthy", "drawing"),
        ({"drawing_seconds": 61.0}, 100.0, "stalled", "one batch takes 61 s, where batches take 3.0 s"),
        ({"drawing_seconds": 79.0, "batch_seconds": 20.0}, 100.0, "healthy", "drawing"),
        ({"drawing_seconds": 81.0, "batch_seconds": 20.0}, 100.0, "stalled", "one batch takes 81 s"),
        ({}, 110.0, "healthy", "drawing"),
        ({}, 111.0, "failed", "the I/O thread hangs since 11 s"),
        ({"failure": "no trainer: expected an answer"}, 100.0, "failed", "no trainer: expected an answer"),
    ],
)
def test_health(changes: dict[str, Any], now: float, status: str, words: str) -> None:
    """A worker without tickets is well; one that is cut off or sits in one batch is not."""
    found = health(replace(STATUS, **changes), _tally().drawn(), now)
    assert (found.status, found.code) == (status, 200 if status == "healthy" else 503)
    assert words in found.reason
    assert found.to_json()["images_drawn"] == 12


def test_the_links_status_follows_its_conversations() -> None:
    """Lost from the start, connected by a welcome, lost again after silence."""
    conversations = [Conversation(FACTS, 10.0), Conversation(FACTS, 12.0)]
    resting = Vitals(idle_seconds=0.0, batch_seconds=1.5)
    status = observe(conversations, resting, 15.0, 0, {}, None)
    assert (status.ranks, status.connected, status.lost_seconds, status.at) == (2, 0, 3.0, 15.0)
    welcome = Welcome(
        run="r",
        session="s",
        protocol=PROTOCOL_VERSION,
        endpoints=("tcp://x",),
        generation=GenerationSpec(),
        heartbeat_seconds=1.0,
        silence_seconds=5.0,
    )
    conversations[0].receive(welcome, 16.0)
    drawing = Vitals(idle_seconds=0.5, batch_seconds=1.5)
    counts = {"session": 1}
    status = observe(conversations, drawing, 17.0, 4, counts, None)
    counts["session"] = 99
    assert (status.connected, status.lost_seconds, status.equipped) == (1, 0.0, False)
    assert (status.drawing_seconds, status.batch_seconds, status.groups_sent) == (0.5, 1.5, 4)
    assert status.malformed == {"session": 1}
    assert conversations[0].must_reopen(30.0)
    status = observe(conversations, drawing, 31.0, 4, counts, RuntimeError("broken"))
    assert (status.connected, status.lost_seconds, status.failure) == (0, 1.0, "broken")


class Linked:
    @property
    def status(self) -> LinkStatus:
        return replace(STATUS, at=time.monotonic())


def test_pages_are_shown_where_the_run_file_says(parse_exposition: Parse) -> None:
    """And nowhere without an address."""
    link: Any = Linked()
    with show("0", FACTS, link, _tally()) as server:
        assert server is not None
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as answer:
            assert "streamrep_generator_connected" in parse_exposition(answer.read().decode())
        with urllib.request.urlopen(f"http://{server.address}/healthz", timeout=10) as answer:
            assert answer.status == 200
    with show("", FACTS, link, _tally()) as server:
        assert server is None
