"""Messages that a feed must survive: one source of them, for the benchmark that sends them by the million."""

import random
from collections.abc import Callable

import numpy as np
import zmq

from protocol import PROTOCOL_VERSION
from protocol.frames import encode
from protocol.generation import GenerationSpec
from protocol.messages import Bye, Equipped, Failed, Group, Hello, Ready, WorkerHeartbeat, WorkerMessage
from protocol.payload import describe_images

Frames = list[bytes]

MESSAGES_A_SOCKET = 200
"""After so many a socket is closed, and a new one opened."""
INTRODUCTIONS = 0.1
"""Share of messages before which a socket says a proper hello."""
HUNGRY = 0.1
"""Share of introductions after which tickets are taken and never drawn. Of one worker only the first loss of
a ticket counts, or five vanishing acts would make a dead letter and many of these end the run."""
RANDOM_BYTES_MAX = 300
FAR_GROUP_ID = 10**12
"""A ticket that was never given out."""


def expected_reasons() -> set[str]:
    """Reasons under which a feed must have counted what is sent here."""
    return {
        "header",  # truncated or random
        "frame_count",
        "protocol_version",
        "another_run",
        "another_session",
        "another_content",
        "shape",
        "codec",
        "nbytes",  # payload cut short, or larger than its header says
        "checksum",
        "unwanted",  # never ordered
        "duplicate",  # replayed
        "unknown_peer",
        "not_equipped",
    }


class Nonsense:
    """Sends one nonsensical message after the other, over sockets that come and go."""

    def __init__(
        self, endpoint: str, spec: GenerationSpec, run: str, session: str, content: str, rng: random.Random
    ) -> None:
        self._endpoint, self._spec, self._random, self._content = endpoint, spec, rng, content
        self._run, self._session = run, session
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._open()
        self._left = MESSAGES_A_SOCKET
        shape = (spec.views, spec.size, spec.size, 3)
        self._images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        self._named: list[Callable[[], Frames]] = [
            self._wrong_version,
            self._wrong_run,
            self._wrong_session,
            self._wrong_content,
            self._wrong_shape,
            self._wrong_codec,
            self._wrong_checksum,
            self._cut_payload,
            self._no_payload,
            self._unordered,
        ]

    def send(self) -> None:
        """One message, of a kind drawn at random."""
        if self._left == 0:
            self._socket.close(linger=0)
            self._socket, self._left = self._open(), MESSAGES_A_SOCKET
        if self._random.random() < INTRODUCTIONS:
            # Again and again, since much of what follows makes the feed forget its sender.
            self._introduce()
        self._left -= 1
        kind = self._random.random()
        if kind < 0.5:
            frames = self._mutated()
        elif kind < 0.7:
            frames = [self._bytes() for _ in range(self._random.randint(1, 4))]
        else:
            frames = self._random.choice(self._named)()
        self._socket.send_multipart(frames)

    def close(self) -> None:
        """Closes the socket, once what was sent has left."""
        self._socket.close(linger=2000)
        self._context.term()

    def _open(self) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.SNDTIMEO, 10_000)
        socket.connect(self._endpoint)
        return socket

    def _introduce(self) -> None:
        """A proper hello, at times an engine, at times a hunger for tickets that nothing is drawn for."""
        self._socket.send(encode(self._hello(PROTOCOL_VERSION)))
        if self._random.random() < 0.8:
            self._socket.send(encode(self._equipped(self._content)))
            if self._random.random() < HUNGRY:
                self._socket.send(
                    encode(Ready(run=self._run, session=self._session, credit=self._random.randint(1, 4)))
                )

    def _hello(self, protocol: int) -> Hello:
        return Hello(run="", session="", protocol=protocol, worker="fuzz", device="none", weights="none")

    def _equipped(self, content: str) -> Equipped:
        return Equipped(run=self._run, session=self._session, content=content, engine="fuzz", batch_images=16)

    def _group(self, group_id: int) -> Group:
        return describe_images(
            self._images, run=self._run, session=self._session, group_id=group_id, draw_seconds=0.1
        )

    def _valid(self) -> tuple[WorkerMessage, bytes | None]:
        number = self._random.randrange(FAR_GROUP_ID)
        choices: list[tuple[WorkerMessage, bytes | None]] = [
            (self._hello(PROTOCOL_VERSION), None),
            (self._equipped(self._content), None),
            (Ready(run=self._run, session=self._session, credit=0), None),
            (self._group(FAR_GROUP_ID + number), self._images.tobytes()),
            (Failed(run=self._run, session=self._session, group_id=number, reason="fuzz"), None),
            (
                WorkerHeartbeat(run=self._run, session=self._session, idle_seconds=0.0, batch_seconds=0.1),
                None,
            ),
            (Bye(run=self._run, session=self._session, returned=(number,)), None),
        ]
        return self._random.choice(choices)

    def _mutated(self) -> Frames:
        message, payload = self._valid()
        header = bytearray(encode(message))
        for _ in range(self._random.randint(1, 4)):
            place = self._random.randrange(len(header))
            match self._random.randrange(4):
                case 0:
                    header[place] ^= 1 << self._random.randrange(8)
                case 1:
                    header[place] = self._random.randrange(256)
                case 2:
                    header[place:place] = self._random.randbytes(self._random.randint(1, 8))
                case _:
                    del header[place + 1 :]
        return [bytes(header)] + ([payload] if payload is not None else [])

    def _bytes(self) -> bytes:
        return self._random.randbytes(self._random.randrange(RANDOM_BYTES_MAX))

    # what a feed must refuse by name

    def _wrong_version(self) -> Frames:
        return [encode(self._hello(PROTOCOL_VERSION + 1 + self._random.randrange(100)))]

    def _wrong_run(self) -> Frames:
        return [encode(Ready(run="another", session=self._session, credit=1))]

    def _wrong_session(self) -> Frames:
        return [encode(Ready(run=self._run, session="another", credit=4))]

    def _wrong_content(self) -> Frames:
        return [encode(self._equipped("another model"))]

    def _wrong_shape(self) -> Frames:
        images = self._images[:, :-1]
        header = describe_images(images, run=self._run, session=self._session, group_id=0, draw_seconds=0.1)
        return [encode(header), images.tobytes()]

    def _wrong_codec(self) -> Frames:
        header = encode(self._group(0)).replace(b"uint8", b"int16")
        return [header, self._images.tobytes()]

    def _wrong_checksum(self) -> Frames:
        damaged = bytearray(self._images.tobytes())
        damaged[self._random.randrange(len(damaged))] ^= 1
        return [encode(self._group(0)), bytes(damaged)]

    def _cut_payload(self) -> Frames:
        return [encode(self._group(0)), self._images.tobytes()[: -self._random.randint(1, 1000)]]

    def _no_payload(self) -> Frames:
        return [encode(self._group(0))]

    def _unordered(self) -> Frames:
        """A good group that nobody ordered, and, being id 0 half of the time, one that came long ago."""
        group_id = self._random.choice((0, FAR_GROUP_ID))
        return [encode(self._group(group_id)), self._images.tobytes()]
