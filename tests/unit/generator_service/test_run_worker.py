"""`run_worker` inside the test's process: its ends, and one with real diffusion."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zmq

from generator_service import worker
from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.errors import LinkError
from generator_service.link_loop import LinkLoop
from generator_service.model_folder import open_model_folder
from protocol.errors import UserError
from protocol.frames import decode_from_worker, encode
from protocol.generation import GenerationSpec
from protocol.messages import Equipped, Group, Hello, Stop, Tickets, TrainerMessage, Welcome
from protocol.payload import unpack_images
from protocol.sockets import bind_router

SPEC = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(3.0,))
STAMP = {"run": "r", "session": "s"}


@pytest.fixture
def router() -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context:
        socket = bind_router(context, "tcp://127.0.0.1:*")
        yield socket
        socket.close(linger=0)


def _endpoint(router: "zmq.Socket[bytes]") -> str:
    return router.get(zmq.LAST_ENDPOINT).decode()


def _serve(router: "zmq.Socket[bytes]", tickets: Tickets) -> list[np.ndarray]:
    """Welcomes one worker, orders, and stops it when everything has come."""
    groups: list[np.ndarray] = []
    until = time.monotonic() + 60
    while len(groups) < len(tickets.tickets):
        assert router.poll(max(0, 1000 * (until - time.monotonic()))), "the worker says nothing"
        identity, *frames = router.recv_multipart(copy=False)
        message, payload = decode_from_worker(frames)
        answer: TrainerMessage | None = None
        if isinstance(message, Hello):
            answer = Welcome(
                **STAMP,
                protocol=1,
                endpoints=(_endpoint(router),),
                generation=SPEC,
                heartbeat_seconds=0.5,
                silence_seconds=60.0,
            )
        elif isinstance(message, Equipped):
            answer = tickets
        elif isinstance(message, Group):
            assert payload is not None
            groups.append(unpack_images(message, payload, shape=(2, 32, 32, 3)))
        if answer is not None:
            router.send_multipart([identity.bytes, encode(answer)])
    router.send_multipart([identity.bytes, encode(Stop(**STAMP, reason="enough"))])
    return groups


def test_streams_what_the_eager_engine_draws(
    router: "zmq.Socket[bytes]", distilled_folder: Path, make_ticket
) -> None:
    """The pixels on the wire are the engine's own, a group in every slot; the worker ends when told."""
    tickets = tuple(make_ticket(i, f"caption {i}", views=2, guidance=(3.0,)) for i in range(5))
    config = GeneratorConfig(
        connect=_endpoint(router), model=str(distilled_folder), batch_images=6, precision="float32"
    )
    said: list[str] = []
    ended = threading.Thread(target=worker.run_worker, args=(config, threading.Event(), said.append))
    ended.start()
    groups = _serve(router, Tickets(**STAMP, tickets=tickets))
    ended.join(10)
    assert not ended.is_alive()
    folder = open_model_folder(str(distilled_folder))
    engine = DiffusionEngine(config, folder, folder.weights_digest(), SPEC, lambda: False)
    expected = engine.draw(tickets[:3], lambda: False) + engine.draw(tickets[3:], lambda: False)
    for got, wanted in zip(groups, expected, strict=True):
        assert np.array_equal(got, wanted)
    assert len(said) == 2


def test_a_missing_model_is_told_before_any_socket_opens(tmp_path: Path) -> None:
    """No trainer is needed to learn it."""
    config = GeneratorConfig(model=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="no such folder"):
        worker.run_worker(config, threading.Event())


def test_a_worker_told_to_stop_before_it_finds_a_trainer_just_ends() -> None:
    """Without an error, at once."""
    stop = threading.Event()
    stop.set()
    config = GeneratorConfig(connect="tcp://127.0.0.1:9", engine="fake")
    started = time.monotonic()
    worker.run_worker(config, stop)
    assert time.monotonic() - started < 10


def test_a_name_that_is_looked_up_for_long_does_not_hold_a_worker_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq resolves names in a thread of its own, which nobody can interrupt: `term` waits for it."""
    resolved, term = threading.Event(), zmq.Context.term

    def slow(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        resolved.wait(60)
        term(context)

    monkeypatch.setattr(zmq.Context, "term", slow)
    stop = threading.Event()
    stop.set()
    started = time.monotonic()
    worker.run_worker(GeneratorConfig(connect="tcp://127.0.0.1:9", engine="fake"), stop)
    assert time.monotonic() - started < worker.OVERDUE_SECONDS - 2
    resolved.set()
    for thread in threading.enumerate():
        if thread.name == "end-context":
            thread.join(10)


def test_the_death_of_the_io_thread_is_the_workers_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own error is the cause."""

    def die(loop: LinkLoop) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(LinkLoop, "_turn", die)
    with pytest.raises(LinkError, match="RuntimeError\\('a defect'\\)") as ended:
        worker.run_worker(GeneratorConfig(engine="fake"), threading.Event())
    assert isinstance(ended.value.__cause__, RuntimeError)


def test_a_malformed_address_is_told() -> None:
    """By the option that holds it."""
    with pytest.raises(UserError, match=r"generator\.connect: cannot connect"):
        worker.run_worker(GeneratorConfig(connect="nowhere", engine="fake"), threading.Event())


def test_a_draw_that_cannot_be_left_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when it is overdue."""
    codes: list[int] = []
    monkeypatch.setattr(worker.os, "_exit", codes.append)
    monkeypatch.setattr(worker, "OVERDUE_SECONDS", 0.05)
    left = threading.Event()
    left.set()
    finished = threading.Event()
    worker._end_overdue(SimpleNamespace(abandoned=left, told_at=time.monotonic()), finished)
    assert codes == [1]
    finished.set()
    worker._end_overdue(SimpleNamespace(abandoned=left, told_at=time.monotonic()), finished)
    assert codes == [1]
