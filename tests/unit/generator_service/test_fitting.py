"""A static batch that has no room is halved once, at the start or in the middle of a run."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import zmq

from generator_service import worker
from generator_service.config import GeneratorConfig
from generator_service.conversation import WorkerFacts
from generator_service.engine import Abandoned
from generator_service.errors import OutOfDeviceMemoryError
from generator_service.fake import FakeEngine
from generator_service.fitting import EngineBuilder, Fitting
from protocol.frames import decode_from_worker, encode
from protocol.generation import GenerationSpec
from protocol.messages import Equipped, Group, Hello, Stop, Tickets, TrainerMessage, Welcome
from protocol.payload import ImagesNHWC
from protocol.sockets import bind_router
from protocol.tickets import Ticket

SPEC = GenerationSpec(views=2, size=16, guidance=(3.0,))
STAMP = {"run": "r", "session": "s"}


class Device:
    """Has room for static batches of so many images, and knows what was built on it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.built: list[int] = []

    def builder(self, batch_images: int) -> EngineBuilder:
        def build(spec: GenerationSpec, abandoned: Abandoned) -> FakeEngine:
            self.built.append(batch_images)
            self.check(batch_images)
            return Roomy(self, spec, batch_images)

        return build

    def check(self, batch_images: int) -> None:
        if batch_images > self.room:
            raise OutOfDeviceMemoryError("a device", batch_images, "none left")


class Roomy(FakeEngine):
    """Draws as long as the device has room."""

    def __init__(self, device: Device, spec: GenerationSpec, batch_images: int) -> None:
        super().__init__(spec, batch_images=batch_images)
        self._device = device

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        self._device.check(self.batch_images)
        return super().draw(tickets, abandoned)


def _fitting(device: Device, batch_images: int, said: list[str]) -> Fitting:
    return Fitting(device.builder(batch_images), device.builder, said.append)


def test_a_batch_without_room_is_halved_with_a_warning() -> None:
    """Which names the setting, and both sizes."""
    device, said = Device(room=8), []
    engine = _fitting(device, 12, said).build(SPEC, lambda: False, exact=False)
    assert (engine.batch_images, device.built) == (6, [12, 6])
    [warning] = said
    assert "12 images" in warning
    assert "generator.batch_images = 6" in warning


@pytest.mark.parametrize(("room", "batch_images", "exact"), [(2, 12, False), (8, 12, True), (1, 2, False)])
def test_what_does_not_fit_then_is_an_error(room: int, batch_images: int, exact: bool) -> None:
    """A second time, in an exact run, and where half a batch would hold no group."""
    with pytest.raises(OutOfDeviceMemoryError, match=r"lower generator\.batch_images"):
        _fitting(Device(room), batch_images, []).build(SPEC, lambda: False, exact=exact)


@pytest.fixture
def router() -> Iterator["zmq.Socket[bytes]"]:
    with zmq.Context() as context:
        socket = bind_router(context, "tcp://127.0.0.1:*")
        yield socket
        socket.close(linger=0)


def _serve(router: Any, tickets: Tickets, device: Device) -> tuple[list[Equipped], dict[int, np.ndarray]]:
    """Orders once the worker is equipped, when the device loses half of its room; stops it at the end."""
    equipped: list[Equipped] = []
    groups: dict[int, np.ndarray] = {}
    until = time.monotonic() + 60
    endpoint = router.get(zmq.LAST_ENDPOINT).decode()
    while len(groups) < len(tickets.tickets):
        assert router.poll(max(0, 1000 * (until - time.monotonic()))), "the worker says nothing"
        identity, *frames = router.recv_multipart(copy=False)
        message, payload = decode_from_worker(frames)
        answer: TrainerMessage | None = None
        if isinstance(message, Hello):
            answer = Welcome(
                **STAMP,
                protocol=1,
                endpoints=(endpoint,),
                generation=SPEC,
                heartbeat_seconds=0.5,
                silence_seconds=60.0,
            )
        elif isinstance(message, Equipped):
            equipped.append(message)
            device.room = 6
            answer = tickets if len(equipped) == 1 else None
        elif isinstance(message, Group):
            assert payload is not None
            groups[message.group_id] = np.frombuffer(payload.buffer, np.uint8).reshape(message.shape)
        if answer is not None:
            router.send_multipart([identity.bytes, encode(answer)])
    router.send_multipart([identity.bytes, encode(Stop(**STAMP, reason="enough"))])
    return equipped, groups


def test_a_worker_that_runs_out_of_memory_goes_on_with_half_a_batch(
    router: "zmq.Socket[bytes]", make_ticket: Any
) -> None:
    """It says `equipped` anew, with another engine hash, and no ticket is lost: not that of the batch under
    way, nor those that waited."""
    device, said = Device(room=12), []
    tickets = tuple(make_ticket(i, f"caption {i}", views=2, guidance=(3.0,)) for i in range(14))
    config = GeneratorConfig(connect=router.get(zmq.LAST_ENDPOINT).decode(), engine="fake")
    facts = WorkerFacts(worker="w", device="none", weights="fake")
    arguments = (config, facts, device.builder(12), threading.Event(), said.append, device.builder)
    ended = threading.Thread(target=worker.serve, args=arguments)
    ended.start()
    equipped, groups = _serve(router, Tickets(**STAMP, tickets=tickets), device)
    ended.join(10)
    assert not ended.is_alive()
    assert [message.batch_images for message in equipped] == [12, 6]
    assert equipped[0].engine != equipped[1].engine
    assert equipped[0].content == equipped[1].content
    expected = FakeEngine(SPEC, batch_images=28).draw(tickets, lambda: False)
    for ticket, images in zip(tickets, expected, strict=True):
        assert np.array_equal(groups[ticket.group_id], images)
    assert any(line.startswith("warning: ") for line in said)
