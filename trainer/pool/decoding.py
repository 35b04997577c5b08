"""The work of one decoding process: places of pictures in, pixels out.

Imports nothing heavy, since every process imports it anew.
"""

import signal
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from protocol.payload import ImagesNHWC
from trainer.errors import DamagedImageError
from trainer.pool.files import Place, PoolFiles
from trainer.pool.images import ImageHWC, decode_image

STOP = b""


class Job(Struct, frozen=True, array_like=True):
    """One group to decode."""

    number: int
    """Comes back with the answer."""
    places: tuple[Place, ...]
    """In the order in which they are wanted."""
    count: int
    """Images that the group has."""
    size: int
    exact: bool
    """Whether one damaged picture spoils the group, instead of being replaced by a later one."""


class Answer(Struct, frozen=True, array_like=True):
    """What became of a job. Where `used` is not empty, [len(used), size, size, 3] uint8 follow."""

    number: int
    used: tuple[int, ...]
    """The place of each image; empty where no group could be made."""
    damaged: tuple[tuple[int, str, str], ...]
    """(place, reason, detail) of what could not be used."""


def decode(job: Job, files: PoolFiles) -> tuple[Answer, ImagesNHWC]:
    """Takes the wanted pictures in their order; where fewer than `count` are good they repeat in turn."""
    images: list[ImageHWC] = []
    used: list[int] = []
    damaged: list[tuple[int, str, str]] = []
    for i, place in enumerate(job.places):
        if len(used) == job.count:
            break
        try:
            images.append(decode_image(files.read(place), job.size))
            used.append(i)
        except DamagedImageError as error:
            damaged.append((i, error.reason, error.detail))
    if not used or (job.exact and damaged):
        return Answer(job.number, (), tuple(damaged)), np.zeros((0, job.size, job.size, 3), np.uint8)
    turns = [i % len(used) for i in range(job.count)]
    answer = Answer(job.number, tuple(used[i] for i in turns), tuple(damaged))
    return answer, np.stack([images[i] for i in turns])


def serve(connection: Connection, folder: str) -> None:
    """Answers jobs until told to stop or the other end is gone, by whatever end of its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then tells us
    files, decoder = PoolFiles(Path(folder)), msgspec.msgpack.Decoder(Job)
    try:
        while (data := connection.recv_bytes()) != STOP:
            answer, images_NHWC = decode(decoder.decode(data), files)
            connection.send_bytes(msgspec.msgpack.encode(answer))
            if answer.used:
                connection.send_bytes(images_NHWC.data.cast("B"))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    finally:
        files.close()
