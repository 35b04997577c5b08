"""A worker written from docs/wire.md alone, with plain pyzmq and msgpack, serves a real feed."""

import time
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import xxhash
import zmq

from protocol.generation import GenerationSpec
from trainer.captions import Captions
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

PLAN = Plan(
    Captions(["café au lait", "zwei", "trois"]), 77, GenerationSpec(views=2, size=8, guidance=(2.0, 3.0))
)


class PlainWorker:
    """Nothing of this project's: sockets, maps and bytes."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(endpoint)
        self.stamp = {"run": "", "session": ""}

    def say(self, kind: str, payload: bytes | None = None, **fields: Any) -> None:
        header = msgpack.packb({"type": kind, **self.stamp, **fields})
        self.socket.send_multipart([header] if payload is None else [header, payload])

    def hear(self, kind: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.socket.poll(100):
                [header] = self.socket.recv_multipart()
                message: dict[str, Any] = msgpack.unpackb(header)
                if message["type"] == kind:
                    return message
        raise AssertionError(f"no {kind} within 20 s")

    def join(self) -> dict[str, Any]:
        self.say("hello", protocol=1, worker="plain", device="abacus", weights="none")
        welcome = self.hear("welcome")
        self.stamp = {"run": welcome["run"], "session": welcome["session"]}
        self.say("equipped", content="c", engine="e", batch_images=4)
        return welcome

    def draw(self, ticket: dict[str, Any]) -> None:
        images = np.full((2, 8, 8, 3), ticket["seeds"][0] % 256, np.uint8).tobytes()
        self.say(
            "group",
            images,
            group_id=ticket["group_id"],
            shape=[2, 8, 8, 3],
            dtype="uint8",
            codec="raw",
            nbytes=len(images),
            xxh3=xxhash.xxh3_64_hexdigest(images),
            draw_seconds=1,
        )

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()


def _make_desk(bound: str) -> Desk:
    settings = DeskSettings(session="s", endpoints=(bound,), content="", lease_seconds=10.0)
    return Desk(PLAN, Leases(DoneIds(), target=100, window=4), settings)


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed(_make_desk, "tcp://127.0.0.1:*")
    made.start()
    yield made
    made.stop("over")


@pytest.fixture
def worker(feed: Feed) -> Iterator[PlainWorker]:
    made = PlainWorker(feed.endpoint)
    yield made
    made.close()


def _take(feed: Feed, count: int) -> list[Any]:
    taken: list[Any] = []
    deadline = time.monotonic() + 20
    while len(taken) < count and time.monotonic() < deadline:
        feed.wait(0.1)
        taken += feed.take(count - len(taken))
    return taken


def test_a_plain_worker_draws_and_leaves(feed: Feed, worker: PlainWorker) -> None:
    """Welcome, tickets, groups, heartbeat, failed, bye, stop: every message but the refusals."""
    welcome = worker.join()
    assert welcome["endpoints"] == [feed.endpoint]
    assert welcome["generation"] == {
        "views": 2, "size": 8, "draw_size": 0, "steps": 4,
        "guidance": [2.0, 3.0], "sampler": "ddim", "negative_prompt": "",
    }  # fmt: skip
    worker.say("ready", credit=3)
    tickets = worker.hear("tickets")["tickets"]
    assert [ticket["group_id"] for ticket in tickets] == [0, 1, 2]
    worker.say("heartbeat", idle_seconds=0, batch_seconds=0.5)
    for ticket in tickets:
        worker.draw(ticket)
    groups = _take(feed, 3)
    assert [int(group.images_NHWC[0, 0, 0, 0]) for group in groups] == [t["seeds"][0] % 256 for t in tickets]
    feed.trained([0, 1, 2])
    held = [ticket for _ in range(2) for ticket in worker.hear("tickets")["tickets"]]
    ids = [ticket["group_id"] for ticket in held]
    assert ids == [3, 4, 5], "one as groups came in, two as they were trained"
    worker.say("failed", group_id=3, reason="out of beads")
    worker.draw(held[1])
    again = [ticket["group_id"] for ticket in worker.hear("tickets")["tickets"]]
    assert again == [3, 6], "once half of the credit was free, those that wait again first"
    assert [group.ticket.group_id for group in _take(feed, 1)] == [4]
    while worker.hear("heartbeat")["buffered"]:
        pass  # told before the group was taken
    worker.say("bye", returned=[3, 5, 6])
    second = PlainWorker(feed.endpoint)
    second.join()
    second.say("ready", credit=1)
    assert second.hear("tickets")["tickets"][0]["group_id"] == 3
    feed.stop("finished")
    assert second.hear("stop")["reason"] == "finished"
    second.close()


def test_refusals_tell_why(feed: Feed, worker: PlainWorker) -> None:
    """Not yet greeted; another run; another model; noise."""
    worker.say("ready", credit=1)
    assert worker.hear("reject")["retry"] is True
    worker.join()
    worker.say("ready", credit=1)
    worker.hear("tickets")
    other = PlainWorker(feed.endpoint)
    other.stamp = {"run": "of last week", "session": ""}
    other.say("hello", protocol=1, worker="late", device="abacus", weights="none")
    assert "of last week" in other.hear("reject")["reason"]
    other.stamp = {"run": "", "session": ""}
    other.say("hello", protocol=1, worker="late", device="abacus", weights="none")
    other.stamp = worker.stamp
    other.hear("welcome")
    other.say("equipped", content="d", engine="e", batch_images=4)
    assert "expected content hash c, got d" in other.hear("reject")["reason"]
    other.close()
    worker.socket.send(b"\xc1")
    assert worker.hear("reject")["retry"] is False


def test_ids_and_seeds_are_the_documented_hashes(feed: Feed, worker: PlainWorker) -> None:
    """Computed here from the page's words, not by the project's functions."""
    worker.join()
    worker.say("ready", credit=4)
    for ticket in worker.hear("tickets")["tickets"]:
        text = unicodedata.normalize("NFC", ticket["caption"]).strip().encode()
        assert ticket["caption_id"] == xxhash.xxh3_64_intdigest(text) % 2**63
        for i, seed in enumerate(ticket["seeds"]):
            numbers = (77, ticket["caption_id"], ticket["first_view"] + i)
            key = b"".join(number.to_bytes(8, "little") for number in numbers)
            assert seed == xxhash.xxh3_64_intdigest(key) % 2**32
