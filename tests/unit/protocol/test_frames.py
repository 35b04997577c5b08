"""Messages survive the wire, and nothing that a peer sends does more than raise MalformedMessageError."""

import contextlib

import msgpack
import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from protocol import PROTOCOL_VERSION
from protocol.errors import MalformedMessageError
from protocol.frames import HEADER_BYTES_MAX, decode_from_trainer, decode_from_worker, encode
from protocol.generation import GenerationSpec
from protocol.messages import Bye, Group, Hello, Ready, Reject, Tickets, Welcome, WorkerHeartbeat
from protocol.payload import describe_images, unpack_images
from protocol.tickets import Ticket

STAMP = {"run": "r", "session": "s"}


def _ticket(group_id: int) -> Ticket:
    return Ticket(
        group_id=group_id, caption_id=7, caption="chat", first_view=0, seeds=(1, 2), guidance=(2.0, 2.0)
    )


def _frames(message: object) -> list[zmq.Frame]:
    return [zmq.Frame(encode(message))]  # type: ignore[arg-type]  # any of the messages


@pytest.mark.parametrize(
    "message",
    [
        Hello(**STAMP, protocol=PROTOCOL_VERSION, worker="w", device="cpu", weights="d"),
        Ready(**STAMP, credit=3),
        WorkerHeartbeat(**STAMP, idle_seconds=0.5, batch_seconds=1.0),
        Bye(**STAMP, returned=(1, 2)),
    ],
)
def test_worker_messages_round_trip(message: object) -> None:
    """What a worker says is what the trainer hears."""
    assert decode_from_worker(_frames(message)) == (message, None)


@pytest.mark.parametrize(
    "message",
    [
        Welcome(
            **STAMP,
            protocol=1,
            endpoints=("tcp://127.0.0.1:1",),
            generation=GenerationSpec(guidance=(2.0, 3.0)),
            heartbeat_seconds=1.0,
            silence_seconds=5.0,
        ),
        Tickets(**STAMP, tickets=(_ticket(0), _ticket(1))),
        Reject(**STAMP, reason="no", retry=True),
    ],
)
def test_trainer_messages_round_trip(message: object) -> None:
    """What a trainer says is what the worker hears."""
    assert decode_from_trainer(_frames(message)) == message


def test_the_header_is_plain_message_pack() -> None:
    """Any MessagePack library can read it: a map with a `type`."""
    raw = msgpack.unpackb(encode(Ready(**STAMP, credit=3)))
    assert raw == {"type": "ready", "run": "r", "session": "s", "credit": 3}


def test_an_unknown_field_of_a_newer_peer_is_ignored() -> None:
    """Schema evolution: more may be said."""
    header = msgpack.packb({"type": "ready", "run": "r", "session": "s", "credit": 3, "new": 1})
    assert decode_from_worker([zmq.Frame(header)])[0] == Ready(**STAMP, credit=3)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "header"),
        (b"\xc1", "header"),
        (msgpack.packb({"type": "nonsense", "run": "", "session": ""}), "header"),
        (msgpack.packb({"type": "ready", "run": "r", "session": "s", "credit": -1}), "header"),
        (msgpack.packb({"type": "ready", "run": "r" * 300, "session": "s", "credit": 1}), "header"),
        (
            msgpack.packb({"type": "heartbeat", **STAMP, "idle_seconds": 0, "batch_seconds": float("inf")}),
            "header",
        ),
        (
            msgpack.packb({"type": "heartbeat", **STAMP, "idle_seconds": float("nan"), "batch_seconds": 1.0}),
            "header",
        ),
        (b"\x91" * 100_000, "header"),
        (b"\xdf\xff\xff\xff\xff", "header"),
        (b"\x00" * (HEADER_BYTES_MAX + 1), "header_size"),
    ],
)
def test_hostile_headers_are_refused_by_name(header: bytes, reason: str) -> None:
    """Truncated, nested, oversized, out of range: one error type, with a label to count by."""
    with pytest.raises(MalformedMessageError) as caught:
        decode_from_worker([zmq.Frame(header)])
    assert caught.value.reason == reason


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    """Fuzzing the decoder."""
    with contextlib.suppress(MalformedMessageError):
        decode_from_worker([zmq.Frame(data)])


def test_a_group_without_payload_and_a_ready_with_one_are_refused() -> None:
    """The number of frames belongs to the message."""
    images = np.zeros((2, 4, 4, 3), np.uint8)
    group = encode(describe_images(images, run="r", session="s", group_id=1, draw_seconds=0.1))
    with pytest.raises(MalformedMessageError, match="frame_count"):
        decode_from_worker([zmq.Frame(group)])
    with pytest.raises(MalformedMessageError, match="frame_count"):
        decode_from_worker([zmq.Frame(encode(Ready(**STAMP, credit=1))), zmq.Frame(b"x")])
    with pytest.raises(MalformedMessageError, match="frame_count"):
        decode_from_worker([])


def _group(images: np.ndarray) -> Group:
    return describe_images(images, run="r", session="s", group_id=1, draw_seconds=0.1)


def test_pixels_arrive_as_they_were_sent_without_a_copy() -> None:
    """The array is a view of the frame's memory."""
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    frame = zmq.Frame(images.tobytes())
    got = unpack_images(_group(images), frame, shape=(2, 4, 4, 3))
    assert np.array_equal(got, images)
    assert np.shares_memory(got, np.frombuffer(frame.buffer, np.uint8))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shape": (2, 4, 4, 4)}, "shape"),
        ({"nbytes": 95}, "nbytes"),
        ({"xxh3": "0" * 16}, "checksum"),
        ({"codec": "jpeg"}, "codec"),
        ({"dtype": "float32"}, "codec"),
    ],
)
def test_a_payload_that_does_not_fit_its_header_is_refused(change: dict[str, object], reason: str) -> None:
    """Shape, size and checksum are compared before the pixels are used."""
    images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    group = msgspec.structs.replace(_group(images), **change)
    with pytest.raises(MalformedMessageError) as caught:
        unpack_images(group, zmq.Frame(images.tobytes()), shape=(2, 4, 4, 3))
    assert caught.value.reason == reason


def test_a_payload_cut_short_is_refused() -> None:
    """The frame itself may lie."""
    images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    with pytest.raises(MalformedMessageError, match="nbytes"):
        unpack_images(_group(images), zmq.Frame(images.tobytes()[:-1]), shape=(2, 4, 4, 3))
