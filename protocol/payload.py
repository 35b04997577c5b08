"""A group's pixels on the wire: one raw frame, checked against its header before anyone reads it."""

import math

import numpy as np
import numpy.typing as npt
import xxhash
import zmq

from protocol.errors import MalformedMessageError
from protocol.frames import PAYLOAD_BYTES_MAX
from protocol.messages import Group

ImagesNHWC = npt.NDArray[np.uint8]
"""[views, height, width, 3] uint8."""


def checksum(images_NHWC: ImagesNHWC) -> str:
    """xxh3-64 of the pixels in C order, 16 hex digits. The ledger's digest of a group is this text."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(images_NHWC).data)


def describe_images(
    images_NHWC: ImagesNHWC,
    *,
    run: str,
    session: str,
    group_id: int,
    draw_seconds: float,
    caption_cut: bool = False,
) -> Group:
    """The header that announces these pixels."""
    if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[3] != 3:
        raise ValueError(
            f"expected uint8 [views, height, width, 3], got {images_NHWC.dtype} {images_NHWC.shape}"
        )
    views, height, width, channels = images_NHWC.shape
    return Group(
        run=run,
        session=session,
        group_id=group_id,
        shape=(views, height, width, channels),
        dtype="uint8",
        codec="raw",
        nbytes=images_NHWC.nbytes,
        xxh3=checksum(images_NHWC),
        draw_seconds=draw_seconds,
        caption_cut=caption_cut,
    )


def unpack_images(group: Group, payload: zmq.Frame, *, shape: tuple[int, int, int, int]) -> ImagesNHWC:
    """The pixels of a group as a view of the frame's own memory (no copy, writable, kept alive by the view).

    `shape` is what the run's spec says. Raises MalformedMessageError when header, spec and payload disagree.
    """
    buffer = payload.buffer
    if group.dtype != "uint8" or group.codec != "raw":
        raise MalformedMessageError("codec", f"uint8 raw is spoken here, got {group.dtype} {group.codec}")
    if group.shape != shape:
        raise MalformedMessageError("shape", f"the run's groups are {shape}, got {group.shape}")
    if not math.prod(shape) == group.nbytes == buffer.nbytes <= PAYLOAD_BYTES_MAX:
        raise MalformedMessageError(
            "nbytes", f"shape says {math.prod(shape)}, header {group.nbytes}, frame {buffer.nbytes}"
        )
    if xxhash.xxh3_64_hexdigest(buffer) != group.xxh3:
        raise MalformedMessageError("checksum", f"group {group.group_id} was damaged on the way")
    return np.frombuffer(buffer, dtype=np.uint8).reshape(shape)
