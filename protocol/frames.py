"""Messages to frames and back. The only place that decodes bytes from a peer."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import zmq

from protocol.errors import MalformedMessageError
from protocol.messages import Group, TrainerMessage, WorkerMessage

Message = TypeVar("Message")

HEADER_BYTES_MAX = 1 << 20
PAYLOAD_BYTES_MAX = 256 << 20

_worker_decoder: msgspec.msgpack.Decoder[WorkerMessage] = msgspec.msgpack.Decoder(WorkerMessage)
_trainer_decoder: msgspec.msgpack.Decoder[TrainerMessage] = msgspec.msgpack.Decoder(TrainerMessage)
_encoder = msgspec.msgpack.Encoder()


def encode(message: WorkerMessage | TrainerMessage) -> bytes:
    """The header frame of a message."""
    return _encoder.encode(message)


def decode_from_worker(frames: Sequence[zmq.Frame]) -> tuple[WorkerMessage, zmq.Frame | None]:
    """Header and payload of what a worker sent. `frames` come without the identity frame.

    Raises MalformedMessageError. The payload's bytes are not looked at here: see `payload.unpack_images`.
    """
    message = _decode(_worker_decoder, frames)
    expected = 2 if isinstance(message, Group) else 1
    if len(frames) != expected:
        raise MalformedMessageError(
            "frame_count", f"{type(message).__name__} needs {expected} frames, got {len(frames)}"
        )
    return message, frames[1] if expected == 2 else None


def decode_from_trainer(frames: Sequence[zmq.Frame]) -> TrainerMessage:
    """The one header frame of what a trainer sent. Raises MalformedMessageError."""
    if len(frames) != 1:
        raise MalformedMessageError("frame_count", f"a trainer's message has 1 frame, got {len(frames)}")
    return _decode(_trainer_decoder, frames)


def _decode(decoder: msgspec.msgpack.Decoder[Message], frames: Sequence[zmq.Frame]) -> Message:
    if not frames:
        raise MalformedMessageError("frame_count", "an empty message")
    header = frames[0].buffer
    if header.nbytes > HEADER_BYTES_MAX:
        raise MalformedMessageError("header_size", f"{header.nbytes} bytes, at most {HEADER_BYTES_MAX}")
    try:
        return decoder.decode(header)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedMessageError("header", str(error)) from error
