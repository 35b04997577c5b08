"""The decoding processes of a trainer, and the threads that take in what they send.

submit ─job→ process with the fewest jobs ─answer, pixels→ its thread ─→ [answers] ─take→
"""

import multiprocessing
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import numpy as np

from protocol.payload import ImagesNHWC
from trainer.errors import FeedFailedError
from trainer.pool.decoding import STOP, Answer, Job, serve

END_SECONDS = 3.0


@dataclass(eq=False)
class _Decoder:
    process: "multiprocessing.context.SpawnProcess"
    connection: Connection
    thread: threading.Thread | None = None
    jobs: int = 0


class Decoders:
    """Spawned, not forked: the trainer has threads and sockets. Methods are for the training thread."""

    def __init__(self, folder: Path, processes: int, size: int) -> None:
        """`size`: of every image, in pixels."""
        self._folder = folder
        self._size = size
        self._changed = threading.Condition()
        self._answers: list[tuple[Answer, ImagesNHWC]] = []
        self._failure = ""
        self._closing = False
        self._decoders = [self._start(number) for number in range(processes)]

    def _start(self, number: int) -> _Decoder:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, str(self._folder)), name=f"decode-{number}", daemon=True
        )
        process.start()
        theirs.close()  # else a process that dies would not end our reading
        decoder = _Decoder(process, ours)
        decoder.thread = threading.Thread(
            target=self._receive, args=(decoder,), name=f"decoded-{number}", daemon=True
        )
        decoder.thread.start()
        return decoder

    def submit(self, job: Job) -> None:
        """Raises FeedFailedError when a process has died."""
        with self._changed:
            self._raise_failure()
            decoder = min(self._decoders, key=lambda decoder: decoder.jobs)
            decoder.jobs += 1
        try:
            decoder.connection.send_bytes(msgspec.msgpack.encode(job))
        except OSError as error:
            raise FeedFailedError(f"a decoding process of the pool is gone: {error}") from error

    def take(self) -> list[tuple[Answer, ImagesNHWC]]:
        """What has been answered since the last time, in any order. Raises FeedFailedError."""
        with self._changed:
            self._raise_failure()
            taken, self._answers = self._answers, []
            return taken

    def wait(self, seconds: float) -> None:
        """Returns when there is an answer or the time is over."""
        with self._changed:
            if not self._answers and not self._failure:
                self._changed.wait(seconds)

    def close(self) -> None:
        """Ends every process within a few seconds, whatever it is at."""
        self._closing = True
        for decoder in self._decoders:
            try:
                decoder.connection.send_bytes(STOP)
            except OSError:
                continue  # it is gone already
        for decoder in self._decoders:
            decoder.process.join(END_SECONDS)
            if decoder.process.exitcode is None:
                decoder.process.kill()
                decoder.process.join()
            assert decoder.thread
            decoder.thread.join(END_SECONDS)  # it reads until the other end is closed
            decoder.connection.close()
            decoder.process.close()

    def _raise_failure(self) -> None:
        if self._failure:
            raise FeedFailedError(self._failure)

    def _receive(self, decoder: _Decoder) -> None:
        answers = msgspec.msgpack.Decoder(Answer)
        try:
            while True:
                answer = answers.decode(decoder.connection.recv_bytes())
                images_NHWC = np.zeros((len(answer.used), self._size, self._size, 3), np.uint8)
                if answer.used:
                    decoder.connection.recv_bytes_into(images_NHWC.data.cast("B"))
                with self._changed:
                    decoder.jobs -= 1
                    self._answers.append((answer, images_NHWC))
                    self._changed.notify_all()
        except (EOFError, OSError):
            decoder.process.join(END_SECONDS)
            self._fail(f"a decoding process of the pool ended with code {decoder.process.exitcode}")
        except BaseException as error:  # carried to the training thread, which raises it
            self._fail(f"the pool's decoding failed: {error}")

    def _fail(self, reason: str) -> None:
        with self._changed:
            if not self._closing:
                self._failure = self._failure or reason
            self._changed.notify_all()
