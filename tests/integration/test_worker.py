"""A real worker process with the fake engine, against a trainer written by hand on a plain ROUTER."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
import zmq

from generator_service.config import GeneratorConfig
from generator_service.fake import WEIGHTS, FakeEngine, draw_fake_group
from protocol import PROTOCOL_VERSION
from protocol.frames import decode_from_worker, encode
from protocol.generation import GenerationSpec
from protocol.identity import caption_id, view_seed
from protocol.messages import (
    Bye,
    Cancel,
    Equipped,
    Failed,
    Group,
    Hello,
    Ready,
    Reject,
    Stop,
    Tickets,
    TrainerHeartbeat,
    TrainerMessage,
    Welcome,
    WorkerHeartbeat,
    WorkerMessage,
)
from protocol.payload import unpack_images
from protocol.sockets import bind_router
from protocol.tickets import Ticket

SPEC = GenerationSpec(views=3, size=64, guidance=(1.0,))
RUN = "run-1"
PATIENCE_SECONDS = 30.0
ROOT = Path(__file__).parents[2]

Kind = TypeVar("Kind", bound=WorkerMessage)

_WORKER = """
import signal, sys, threading, msgspec
from generator_service.config import GeneratorConfig
from generator_service.worker import run_worker
from protocol.errors import UserError
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
try:
    run_worker(msgspec.json.decode(sys.argv[1], type=GeneratorConfig), stop)
except UserError as error:
    print(error)
    sys.exit(2)
"""


class Trainer:
    """One rank: answers hello, sends heartbeats whenever it waits, and hands the rest to the test."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", bind: str) -> None:
        self.socket = bind_router(context, bind)
        self.endpoint = self.socket.get(zmq.LAST_ENDPOINT).decode()
        self.session = "session-1"
        self.identity = b""
        self.payload: zmq.Frame | None = None
        self.heartbeats: list[WorkerHeartbeat] = []

    def send(self, message: TrainerMessage) -> None:
        self.socket.send_multipart([self.identity, encode(message)])

    def expect(self, kind: type[Kind], seconds: float = PATIENCE_SECONDS) -> Kind:
        """The next message of a kind; others are passed over, heartbeats are kept."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.identity:
                self.send(TrainerHeartbeat(run=RUN, session=self.session, wanted=5, buffered=0))
            if not self.socket.poll(100):
                continue
            identity, *frames = self.socket.recv_multipart(copy=False)
            message, payload = decode_from_worker(frames)
            if isinstance(message, Hello):
                self.identity = identity.bytes
            if isinstance(message, WorkerHeartbeat):
                self.heartbeats.append(message)
            if isinstance(message, kind):
                self.payload = payload
                return message
        raise AssertionError(f"no {kind.__name__} within {seconds} s")

    def welcome(self, *others: str, silence_seconds: float = 10.0, heartbeat_seconds: float = 0.2) -> Hello:
        """Answers the next hello."""
        hello = self.expect(Hello)
        self.send(
            Welcome(
                run=RUN,
                session=self.session,
                protocol=PROTOCOL_VERSION,
                endpoints=(self.endpoint, *others),
                generation=SPEC,
                heartbeat_seconds=heartbeat_seconds,
                silence_seconds=silence_seconds,
            )
        )
        return hello

    def order(self, tickets: list[Ticket]) -> None:
        self.send(Tickets(run=RUN, session=self.session, tickets=tuple(tickets)))

    def watch_begin(self) -> None:
        """Waits until a batch is under way."""
        while not self.expect(WorkerHeartbeat).idle_seconds:
            pass

    def stop(self) -> Bye:
        self.send(Stop(run=RUN, session=self.session, reason="enough"))
        return self.expect(Bye)


def make_tickets(first: int, count: int, views: int = SPEC.views) -> list[Ticket]:
    """Tickets as a plan makes them."""
    tickets = []
    for group_id in range(first, first + count):
        caption = f"thing {group_id}"
        named = caption_id(caption)
        tickets.append(
            Ticket(
                group_id=group_id,
                caption_id=named,
                caption=caption,
                first_view=0,
                seeds=tuple(view_seed(1, named, view) for view in range(views)),
                guidance=(1.0,) * views,
            )
        )
    return tickets


@pytest.fixture
def open_trainer() -> Iterator[Callable[..., Trainer]]:
    """Opens trainers' sockets and closes them at the end."""
    trainers: list[Trainer] = []
    with zmq.Context() as context:

        def start(bind: str = "tcp://127.0.0.1:*") -> Trainer:
            trainers.append(Trainer(context, bind))
            return trainers[-1]

        yield start
        for trainer in trainers:
            trainer.socket.close(linger=0)


@pytest.fixture
def trainer(open_trainer: Callable[..., Trainer]) -> Trainer:
    return open_trainer()


@pytest.fixture
def start_worker() -> Iterator[Any]:
    """Starts workers of 2 groups a batch; whatever is left of them at the end is killed."""
    processes = []

    def start(connect: str, **settings: Any) -> "subprocess.Popen[str]":
        config = GeneratorConfig(connect=connect, **{"engine": "fake", "batch_images": 7} | settings)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", _WORKER, msgspec.json.encode(config).decode()],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_draws_what_is_ordered(trainer: Trainer, start_worker: Any) -> None:
    """Right facts, pixels and checksums; a ticket that cannot be drawn fails; malformed messages are dropped.

    Stop ends the process with 0.
    """
    process = start_worker(trainer.endpoint)
    hello = trainer.welcome()
    assert (hello.run, hello.session, hello.protocol, hello.weights) == ("", "", PROTOCOL_VERSION, WEIGHTS)
    equipped = trainer.expect(Equipped)
    assert equipped.content == FakeEngine(SPEC, batch_images=6).content_hash
    assert (equipped.batch_images, equipped.exact, equipped.run) == (6, True, RUN)
    assert trainer.expect(Ready).credit == 4
    trainer.socket.send_multipart([trainer.identity, b"\xc1 no MessagePack"])
    trainer.send(Tickets(run=RUN, session="older", tickets=tuple(make_tickets(50, 1))))
    tickets = make_tickets(0, 3)
    trainer.order([tickets[0], *make_tickets(90, 1, views=2), *tickets[1:]])
    for ticket in tickets:
        group = trainer.expect(Group)
        assert (group.run, group.session, group.group_id) == (RUN, trainer.session, ticket.group_id)
        assert trainer.payload is not None
        images = unpack_images(group, trainer.payload, shape=(3, 64, 64, 3))
        assert np.array_equal(images, draw_fake_group(ticket, 64))
    trainer.order(make_tickets(90, 1, views=2))
    assert "expected 3 views, got 2 seeds" in trainer.expect(Failed).reason
    assert trainer.stop().returned == ()
    assert process.wait(10) == 0


def test_heartbeats_go_on_while_a_batch_computes(trainer: Trainer, start_worker: Any) -> None:
    """They show how long the batch has taken so far, and afterwards what batches take."""
    start_worker(trainer.endpoint, fake_images_per_second=3)
    trainer.welcome()
    trainer.expect(Ready)
    trainer.heartbeats.clear()
    trainer.order(make_tickets(0, 2))
    group = trainer.expect(Group)
    assert group.draw_seconds >= 2
    idle = [beat.idle_seconds for beat in trainer.heartbeats]
    assert len(idle) >= 4
    assert max(idle) > 1
    trainer.expect(Group)
    trainer.expect(WorkerHeartbeat)
    beat = trainer.expect(WorkerHeartbeat)
    assert beat.idle_seconds == 0
    assert beat.batch_seconds >= 2


def test_cancelled_tickets_are_not_drawn(trainer: Trainer, start_worker: Any) -> None:
    """Unless they were begun."""
    start_worker(trainer.endpoint, fake_images_per_second=6)
    trainer.welcome()
    trainer.expect(Ready)
    trainer.order(make_tickets(0, 4))
    trainer.watch_begin()
    trainer.send(Cancel(run=RUN, session=trainer.session, group_ids=(0, 2)))
    assert {trainer.expect(Group).group_id for _ in range(3)} == {0, 1, 3}
    assert trainer.stop().returned == ()


def test_a_long_batch_is_given_back_on_sigterm(trainer: Trainer, start_worker: Any) -> None:
    """All tickets come back in the goodbye, those under way included, and the process ends within 10 s."""
    process = start_worker(trainer.endpoint, fake_images_per_second=0.01)
    trainer.welcome()
    trainer.expect(Ready)
    trainer.order(make_tickets(0, 4))
    trainer.watch_begin()
    process.send_signal(signal.SIGTERM)
    assert sorted(trainer.expect(Bye, 10).returned) == [0, 1, 2, 3]
    assert process.wait(10) == 0


def test_a_short_batch_is_finished_on_sigterm(trainer: Trainer, start_worker: Any) -> None:
    """Only what was not begun comes back."""
    process = start_worker(trainer.endpoint, fake_images_per_second=3)
    trainer.welcome()
    trainer.expect(Ready)
    trainer.order(make_tickets(0, 4))
    trainer.watch_begin()
    process.send_signal(signal.SIGTERM)
    assert {trainer.expect(Group, 10).group_id for _ in range(2)} == {0, 1}
    assert trainer.expect(Bye, 10).returned == (2, 3)
    assert process.wait(10) == 0


def test_a_final_reject_is_the_reason_to_leave(trainer: Trainer, start_worker: Any) -> None:
    """Exit code 2 and the trainer's reason in one line; with retry the worker says hello anew instead."""
    process = start_worker(trainer.endpoint)
    trainer.expect(Hello)
    first = trainer.identity
    trainer.send(Reject(run="", session="", reason="not yet", retry=True))
    trainer.identity = b""
    trainer.welcome()
    assert trainer.identity != first
    trainer.expect(Equipped)
    trainer.send(Reject(run=RUN, session=trainer.session, reason="content hash differs"))
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 2
    assert "got content hash differs;" in output.splitlines()[-1]


def test_outlives_its_trainer(open_trainer: Callable[..., Trainer], start_worker: Any) -> None:
    """A trainer that comes back with a new session gets the group drawn for the old one, then orders anew."""
    trainer = open_trainer()
    process = start_worker(trainer.endpoint, fake_images_per_second=2)
    trainer.welcome(silence_seconds=1.5)
    trainer.expect(Ready)
    trainer.order(make_tickets(0, 3))
    trainer.socket.close(linger=0)
    time.sleep(4)
    second = open_trainer(trainer.endpoint)
    second.session = "session-2"
    hello = second.welcome()
    assert (hello.run, hello.session) == (RUN, "session-1")
    second.expect(Equipped)
    groups = [second.expect(Group) for _ in range(2)]
    assert {group.group_id for group in groups} == {0, 1}
    assert {group.session for group in groups} == {"session-2"}
    second.order(make_tickets(7, 1))
    assert second.expect(Group).group_id == 7
    assert second.stop().returned == ()
    assert process.wait(10) == 0


def test_another_run_is_a_reason_to_leave(trainer: Trainer, start_worker: Any) -> None:
    """The engine was built for the first run's spec."""
    process = start_worker(trainer.endpoint)
    trainer.welcome()
    trainer.expect(Equipped)
    welcome = Welcome(
        run="run-2",
        session="session-2",
        protocol=PROTOCOL_VERSION,
        endpoints=(trainer.endpoint,),
        generation=SPEC,
        heartbeat_seconds=1.0,
        silence_seconds=5.0,
    )
    trainer.send(welcome)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 2
    assert "it runs run-2, this worker was equipped for run-1" in output.splitlines()[-1]


def test_waits_for_a_trainer_only_so_long(trainer: Trainer, start_worker: Any) -> None:
    """At start, and once the trainer is lost; both in one line."""
    trainer.socket.close(linger=0)
    process = start_worker(trainer.endpoint, wait_seconds=1.5)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert "no trainer: expected an answer within 1.5 s, got none" in output.splitlines()[-1]


def test_gives_up_a_lost_trainer(trainer: Trainer, start_worker: Any) -> None:
    """The wait is counted anew from the loss."""
    process = start_worker(trainer.endpoint, wait_seconds=2.0)
    trainer.welcome(silence_seconds=1.5)
    trainer.expect(Ready)
    lost_at = time.monotonic()
    trainer.socket.close(linger=0)
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - lost_at >= 3.3
    assert process.returncode == 2
    assert "no trainer" in output.splitlines()[-1]


def test_serves_every_rank(open_trainer: Callable[..., Trainer], start_worker: Any) -> None:
    """The first rank's welcome names the second; credit is split, and each gets its own groups."""
    first, second = open_trainer(), open_trainer()
    process = start_worker(first.endpoint)
    first.welcome(second.endpoint)
    assert second.welcome(second.endpoint).run == RUN
    ready = first.expect(Ready)
    while ready.credit != 2:
        ready = first.expect(Ready)
    assert second.expect(Ready).credit == 2
    first.order(make_tickets(0, 2))
    second.order(make_tickets(1, 2))
    assert {first.expect(Group).group_id for _ in range(2)} == {0, 1}
    assert {second.expect(Group).group_id for _ in range(2)} == {1, 2}
    assert first.stop().returned == ()
    assert second.expect(Bye).returned == ()
    assert process.wait(10) == 0
