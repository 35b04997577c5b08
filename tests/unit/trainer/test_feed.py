"""The feed's thread over real sockets, with a hand-written worker on the other end."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from protocol import PROTOCOL_VERSION
from protocol.errors import UserError
from protocol.frames import decode_from_trainer, encode
from protocol.generation import GenerationSpec
from protocol.messages import (
    Bye,
    Equipped,
    Failed,
    Hello,
    Ready,
    Reject,
    Stop,
    Tickets,
    TrainerMessage,
    Welcome,
)
from protocol.payload import describe_images
from protocol.sockets import connect_dealer
from protocol.tickets import Ticket
from trainer.captions import Captions
from trainer.done import DoneIds
from trainer.errors import FeedFailedError
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

PLAN = Plan(Captions(["a", "b", "c"]), 0, GenerationSpec(views=2, size=8))
STAMP = {"run": PLAN.digest, "session": "now"}


def _make_desk(bound: str) -> Desk:
    settings = DeskSettings(session="now", endpoints=(bound,), content="", lease_seconds=10.0)
    return Desk(PLAN, Leases(DoneIds(), target=1000, window=8), settings)


class HandWorker:
    """Speaks the protocol one message at a time."""

    def __init__(self, endpoint: str) -> None:
        self.context = zmq.Context()
        self.socket = connect_dealer(self.context, endpoint)

    def say(self, message: Any, payload: bytes | None = None) -> None:
        self.socket.send_multipart([encode(message)] + ([payload] if payload is not None else []))

    def hear(self, kind: type) -> Any:
        """The next message of that kind; heartbeats and others in between are passed over."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self.socket.poll(100):
                message: TrainerMessage = decode_from_trainer(self.socket.recv_multipart(copy=False))
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} within 10 s")

    def join(self) -> None:
        self.say(Hello(run="", session="", protocol=PROTOCOL_VERSION, worker="w", device="cpu", weights="d"))
        self.hear(Welcome)
        self.say(Equipped(**STAMP, content="c", engine="e", batch_images=4))

    def draw(self, ticket: Ticket) -> None:
        images = np.full((2, 8, 8, 3), ticket.group_id, np.uint8)
        header = describe_images(images, **STAMP, group_id=ticket.group_id, draw_seconds=0.1)
        self.say(header, images.tobytes())

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()


@pytest.fixture
def feed() -> Iterator[Feed]:
    made = Feed(_make_desk, "tcp://127.0.0.1:*")
    made.start()
    yield made
    made.stop("test over")


@pytest.fixture
def worker(feed: Feed) -> Iterator[HandWorker]:
    made = HandWorker(feed.endpoint)
    yield made
    made.close()


def _take(feed: Feed, count: int) -> list[Any]:
    taken: list[Any] = []
    deadline = time.monotonic() + 10
    while len(taken) < count and time.monotonic() < deadline:
        feed.wait(0.1)
        taken += feed.take(count - len(taken))
    return taken


def test_groups_flow_and_training_lets_more_come(feed: Feed, worker: HandWorker) -> None:
    """Credit 20, window 8: eight tickets, then one more for each that was trained."""
    worker.join()
    worker.say(Ready(**STAMP, credit=20))
    tickets = worker.hear(Tickets).tickets
    assert [t.group_id for t in tickets] == list(range(8))
    for ticket in tickets:
        worker.draw(ticket)
    groups = _take(feed, 8)
    assert [g.group_id for g in groups] == list(range(8))
    assert [int(g.images_NHWC[1, 7, 7, 2]) for g in groups] == list(range(8))
    assert feed.content == "c"
    feed.trained([0, 1, 2])
    assert [t.group_id for t in worker.hear(Tickets).tickets] == [8, 9, 10]
    status = feed.status()
    assert (status.workers, status.groups_received, status.leased) == (1, 8, 3)


def test_the_status_tells_who_came_who_left_and_how_long_a_ticket_has_been_out(
    feed: Feed, worker: HandWorker
) -> None:
    """The facts that a stall is found from: nobody yet, one without an engine, one that draws, one gone."""
    status = feed.status()
    assert (status.joined, status.connected, status.heard_seconds_ago) == (0, 0, None)
    worker.say(Hello(run="", session="", protocol=PROTOCOL_VERSION, worker="w", device="cpu", weights="d"))
    worker.hear(Welcome)
    status = feed.status()
    assert (status.joined, status.connected, status.workers) == (1, 1, 0)
    worker.say(Equipped(**STAMP, content="c", engine="e", batch_images=4))
    worker.say(Ready(**STAMP, credit=1))
    worker.hear(Tickets)
    time.sleep(0.2)
    status = feed.status()
    assert (status.workers, status.leased) == (1, 1)
    assert 0.2 <= status.oldest_lease_seconds < 5
    assert status.heard_seconds_ago is not None
    worker.say(Bye(**STAMP, returned=(0,)))
    deadline = time.monotonic() + 10
    while feed.status().connected and time.monotonic() < deadline:
        time.sleep(0.05)
    status = feed.status()
    assert (status.joined, status.connected, status.left_silently) == (1, 0, False)
    assert (status.leased, status.oldest_lease_seconds) == (0, 0.0)


def test_garbage_does_not_hurt_the_feed(feed: Feed, worker: HandWorker) -> None:
    """Noise from a stranger and from a known worker is counted; the stream goes on."""
    stranger = HandWorker(feed.endpoint)
    stranger.socket.send_multipart([b"\xc1noise", b"more", b"frames"])
    stranger.socket.send(b"")
    worker.join()
    worker.socket.send_multipart([b"\x00" * 1000])
    assert "header" in worker.hear(Reject).reason
    worker.say(Ready(**STAMP, credit=1))
    assert len(worker.hear(Tickets).tickets) == 1
    assert feed.status().refused["header"] >= 2
    stranger.close()


def test_a_failure_of_the_thread_ends_the_run_with_its_reason(feed: Feed, worker: HandWorker) -> None:
    """Too many dead letters are raised where the trainer takes its next batch."""
    worker.join()
    worker.say(Ready(**STAMP, credit=1))
    deadline = time.monotonic() + 20

    def fail_all() -> None:
        while time.monotonic() < deadline:
            if worker.socket.poll(50):
                message = decode_from_trainer(worker.socket.recv_multipart(copy=False))
                if isinstance(message, Tickets):
                    for ticket in message.tickets:
                        worker.say(Failed(**STAMP, group_id=ticket.group_id, reason="bad model"))
            feed.take(1)

    with pytest.raises(FeedFailedError, match="bad model"):
        fail_all()
    assert "bad model" in feed.status().failure


def test_stop_tells_workers_and_returns_soon(feed: Feed, worker: HandWorker) -> None:
    """Within 3 seconds, twice without harm, and the port is free again."""
    worker.join()
    worker.say(Ready(**STAMP, credit=1))
    worker.hear(Tickets)
    began = time.monotonic()
    feed.stop("finished")
    feed.stop("finished")
    assert time.monotonic() - began < 3
    assert worker.hear(Stop).reason == "finished"
    again = Feed(_make_desk, feed.endpoint)
    again.stop("never started")


@pytest.mark.timeout(20)
def test_a_thread_that_ends_before_it_is_woken_is_not_waited_for(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks by itself whether to stop, and may be gone between the look at it and the wake-up."""
    thread, answers = feed._thread, iter([True])
    lives = thread.is_alive

    def lived_a_moment_ago() -> bool:
        if next(answers, False):
            feed._stopping = True
            thread.join(10)
            return True
        return lives()

    monkeypatch.setattr(thread, "is_alive", lived_a_moment_ago)
    began = time.monotonic()
    feed.stop("done")
    assert time.monotonic() - began < 5


def test_two_trainers_cannot_share_a_port(feed: Feed) -> None:
    """The second is told in one line."""
    with pytest.raises(UserError, match=r"stream\.bind"):
        Feed(_make_desk, feed.endpoint)
