"""Keys over real sockets: who is admitted draws; no other gets a ticket or delivers, and each is told why."""

import json
import multiprocessing
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from generator_service.config import GeneratorConfig
from generator_service.worker import run_worker
from launcher.key_folder import KeyFolder
from protocol import PROTOCOL_VERSION
from protocol.errors import UserError
from protocol.frames import decode_from_trainer, encode
from protocol.generation import GenerationSpec
from protocol.keys import read_trainer_keys, read_worker_keys
from protocol.messages import Equipped, Hello, Ready, Reject, Tickets, TrainerMessage, Welcome
from protocol.payload import describe_images
from protocol.sockets import connect_dealer
from trainer.captions import Captions
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

PLAN = Plan(Captions([f"caption {i}" for i in range(10)]), 0, GenerationSpec(views=2, size=8))
STAMP = {"run": PLAN.digest, "session": "s"}
PATIENCE_SECONDS = 40.0


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    """A trainer's keys, with the worker `good` admitted."""
    folder = KeyFolder(tmp_path / "keys")
    folder.make_trainer()
    folder.make_worker("good")
    return folder


def _feed(keys: str) -> Feed:
    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(session="s", endpoints=(bound,), content="", lease_seconds=30.0)
        return Desk(PLAN, Leases(DoneIds(), target=10**6, window=8), settings)

    feed = Feed(make_desk, "tcp://127.0.0.1:*", read_trainer_keys(keys))
    feed.start()
    return feed


@pytest.fixture
def feed(keys: KeyFolder) -> Iterator[Feed]:
    made = _feed(str(keys.path))
    yield made
    made.stop("over")


def _config(feed: Feed, keys: Path | None, **values: Any) -> dict[str, Any]:
    own = {"keys": str(keys)} if keys else {}
    return {"engine": "fake", "connect": feed.endpoint, "batch_images": 4, "wait_seconds": 3.0} | own | values


def _work(tables: dict[str, Any]) -> None:
    """A worker process; 2 is a UserError, as the command has it."""
    try:
        run_worker(msgspec.convert(tables, GeneratorConfig), threading.Event(), say=lambda text: None)
    except UserError:
        sys.exit(2)


def _start(tables: dict[str, Any]) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(tables,), daemon=True)
    process.start()
    return process


def _refusal(tables: dict[str, Any]) -> str:
    """The line that a worker which is refused ends with."""
    with pytest.raises(UserError) as caught:
        run_worker(msgspec.convert(tables, GeneratorConfig), threading.Event(), say=lambda text: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def _drain(feed: Feed, count: int) -> list[int]:
    ids: list[int] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(ids) < count and time.monotonic() < deadline:
        feed.wait(0.2)
        groups = feed.take(8)
        feed.trained([group.group_id for group in groups])
        ids += [group.group_id for group in groups]
    return ids


def _untouched(feed: Feed) -> bool:
    status = feed.status()
    return (status.workers, status.leased, status.groups_received) == (0, 0, 0)


class HandWorker:
    """An admitted worker that says what the test wants."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.context = zmq.Context()
        self.socket = connect_dealer(self.context, endpoint, read_worker_keys(str(folder)))

    def say(self, message: Any, payload: bytes | None = None) -> None:
        self.socket.send_multipart([encode(message)] + ([payload] if payload is not None else []))

    def hear(self, kind: type) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.socket.poll(100):
                message: TrainerMessage = decode_from_trainer(self.socket.recv_multipart(copy=False))
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} within {PATIENCE_SECONDS} s")

    def join(self) -> tuple[int, ...]:
        """Says hello and asks for tickets; returns their ids."""
        self.say(Hello(run="", session="", protocol=PROTOCOL_VERSION, worker="w", device="cpu", weights="d"))
        self.hear(Welcome)
        self.say(Equipped(**STAMP, content="c", engine="e", batch_images=4))
        self.say(Ready(**STAMP, credit=2))
        return tuple(ticket.group_id for ticket in self.hear(Tickets).tickets)

    def deliver(self, group_id: int) -> None:
        images = np.zeros((2, 8, 8, 3), np.uint8)
        header = describe_images(images, **STAMP, group_id=group_id, draw_seconds=0.1)
        self.say(header, images.tobytes())

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.term()


def test_an_admitted_worker_draws_over_an_encrypted_connection(feed: Feed, keys: KeyFolder) -> None:
    """End to end, with nothing refused."""
    worker = _start(_config(feed, keys.path / "workers" / "good", wait_seconds=30.0))
    assert sorted(_drain(feed, 40)[:40]) == list(range(40))
    assert {reason: n for reason, n in feed.status().refused.items() if "handshake" in reason} == {}
    feed.stop("over")
    worker.join(15)
    assert worker.exitcode == 0


def test_a_worker_without_keys_is_told_to_bring_some(feed: Feed) -> None:
    """It gets nothing, ends in seconds, and the trainer counts why."""
    line = _refusal(_config(feed, None))
    assert "handshake refused" in line
    assert "--generator.keys" in line
    assert _untouched(feed)
    # Both sides hang up on each other, and who is second learns no reason.
    _wait_for(lambda: bool({"handshake_keyless", "handshake_broken"} & feed.status().refused.keys()))


def test_a_worker_that_trusts_another_trainer_is_told_so(feed: Feed, keys: KeyFolder, tmp_path: Path) -> None:
    """Its own key is admitted, but the trainer's that it holds is another's."""
    other = KeyFolder(tmp_path / "other").make_trainer()
    good = keys.path / "workers" / "good"
    (good / "trainer.public").write_bytes(other.read_bytes())
    assert "compare trainer.public" in _refusal(_config(feed, good))
    assert _untouched(feed)
    _wait_for(lambda: feed.status().refused.get("handshake_wrong_key", 0) >= 1)


def test_a_worker_that_was_never_admitted_ends_at_once(feed: Feed, keys: KeyFolder) -> None:
    """With its key in the line, so that it can be admitted; a worker process exits with 2."""
    keys.make_worker("bad")
    keys.revoke("bad")
    folder = keys.path / "workers" / "bad"
    began = time.monotonic()
    line = _refusal(_config(feed, folder, wait_seconds=60.0))
    assert time.monotonic() - began < 20
    assert "streamrep keys admit" in line
    assert (folder / "worker.public").read_text().strip() in line
    assert _untouched(feed)
    _wait_for(lambda: feed.status().refused.get("handshake_not_admitted", 0) >= 1)
    keys.admit("bad", folder / "worker.public")
    worker = HandWorker(feed.endpoint, folder)
    assert worker.join() == (0, 1), "admitting works without a restart of the trainer"
    worker.close()


def test_a_worker_with_keys_is_told_of_a_trainer_without(keys: KeyFolder) -> None:
    """It must not send images in the clear that it was told to encrypt."""
    feed = _feed("")
    line = _refusal(_config(feed, keys.path / "workers" / "good"))
    assert "handshake refused" in line
    assert "stream.keys" in line
    assert _untouched(feed)
    feed.stop("over")


def test_an_older_protocol_is_no_way_around_the_keys(feed: Feed) -> None:
    """ZMTP 1.0 knows no keys: its first message must not reach the desk, whatever is in it."""
    port = int(feed.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as stranger:
        stranger.sendall(b"\x01\x00" + b"\x06\x00hello")
        while stranger.recv(1000):
            pass
    time.sleep(0.3)
    assert _untouched(feed)
    assert [reason for reason in feed.status().refused if "handshake" not in reason] == []


def test_revoking_cuts_a_connected_worker_off_and_its_tickets_move_on(feed: Feed, keys: KeyFolder) -> None:
    """Without a message from it: it gets no ticket and delivers no group any more, and another draws them."""
    keys.make_worker("second")
    good = HandWorker(feed.endpoint, keys.path / "workers" / "good")
    held = good.join()
    assert held == (0, 1)
    keys.revoke("good")
    _wait_for(lambda: feed.status().leased == 0)
    assert "not admitted any more" in good.hear(Reject).reason
    refused = feed.status().refused["not_admitted"]
    good.deliver(held[0])
    good.say(Ready(**STAMP, credit=4))
    _wait_for(lambda: feed.status().refused["not_admitted"] == refused + 2)
    assert _untouched(feed)
    second = HandWorker(feed.endpoint, keys.path / "workers" / "second")
    assert second.join() == held
    for worker in (good, second):
        worker.close()


def test_a_revoked_worker_process_exits_with_2(feed: Feed, keys: KeyFolder) -> None:
    """It was drawing; its tickets are drawn by another, each once."""
    keys.make_worker("second")
    slow = _start(
        _config(feed, keys.path / "workers" / "good", fake_images_per_second=2.0, wait_seconds=60.0)
    )
    _wait_for(lambda: feed.status().leased > 0)
    keys.revoke("good")
    slow.join(PATIENCE_SECONDS)
    assert slow.exitcode == 2
    fast = _start(_config(feed, keys.path / "workers" / "second", wait_seconds=60.0))
    taken = _drain(feed, 20)
    assert sorted(taken) == sorted(set(taken))
    assert set(range(12)) <= set(taken)
    feed.stop("over")
    fast.join(15)
    assert fast.exitcode == 0


def test_the_command_exits_with_2_and_one_line(feed: Feed, tmp_path: Path) -> None:
    """`streamrep generate` against a trainer that does not admit its key."""
    stranger = KeyFolder(tmp_path / "stranger")
    stranger.make_trainer()
    folder = stranger.make_worker("stranger")
    (folder / "trainer.public").write_bytes((tmp_path / "keys" / "trainer.public").read_bytes())
    words = [f"--generator.{name}={json.dumps(value)}" for name, value in _config(feed, folder).items()]
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "generate", *[word.replace('"', "") for word in words]],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"streamrep: {feed.endpoint}: handshake refused")
