"""One rank's socket, its conversation, and what waits to be sent on it. Used by the I/O thread alone."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import zmq

from generator_service.conversation import Conversation, Equipment, Vitals
from generator_service.refusals import Refusals
from protocol.errors import UserError
from protocol.frames import encode
from protocol.handshakes import HandshakeMonitor
from protocol.keys import WorkerKeys
from protocol.messages import Failed, WorkerMessage
from protocol.payload import ImagesNHWC, describe_images
from protocol.sockets import connect, open_dealer, received


@dataclass(frozen=True, kw_only=True)
class DrawnGroup:
    """A group that is to be sent."""

    rank: int
    group_id: int
    images_NHWC: ImagesNHWC
    draw_seconds: float
    caption_cut: bool = False


@dataclass(frozen=True, kw_only=True)
class FailedDraw:
    """A ticket that could not be drawn."""

    rank: int
    group_id: int
    reason: str


Outcome = DrawnGroup | FailedDraw

_REASON_LENGTH = 2000
MESSAGES_A_TURN = 64
_MORE = zmq.NOBLOCK | zmq.SNDMORE


class Channel:
    """Sends without blocking. Outcomes survive a change of socket, other messages belong to their socket."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        conversation: Conversation,
        keys: WorkerKeys | None,
    ) -> None:
        """Raises UserError for an endpoint that is none."""
        self._context = context
        self._keys = keys
        self.endpoint = endpoint
        self.refusals = Refusals(endpoint, keys)
        self.conversation = conversation
        self._messages: deque[WorkerMessage] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._open_socket()

    @property
    def unsent(self) -> tuple[int, ...]:
        """Group ids of the outcomes that wait to be sent."""
        return tuple(outcome.group_id for outcome in self._outcomes)

    @property
    def drained(self) -> bool:
        """Whether nothing waits that could be sent now."""
        return not self._messages and not (self._outcomes and self.conversation.active)

    def receive(self) -> Iterator[list[zmq.Frame]]:
        """The messages that have come."""
        return received(self.socket, MESSAGES_A_TURN)

    def keep(self, outcome: Outcome) -> None:
        """Queues an outcome until the rank can take it."""
        self._outcomes.append(outcome)
        self.conversation.say_ready_again()

    def speak(self, now: float, *, equipment: Equipment | None, credit: int, vitals: Vitals) -> int:
        """Sends what is due; returns how many groups went out."""
        # What was drawn before goes first, so that it counts as drawn by the engine that was told before.
        groups = self.flush()
        # A rank that reads nothing is told nothing new: its silence will end the socket.
        if not self._messages:
            self._messages.extend(
                self.conversation.outgoing(now, equipment=equipment, credit=credit, vitals=vitals)
            )
        return groups + self.flush()

    def say_bye(self, undrawn: tuple[int, ...]) -> None:
        """Queues the last message, for a rank that knows the worker; what is unsent is given back as well."""
        returned = undrawn + self.unsent
        self._outcomes.clear()
        if self.conversation.welcomed:
            self._messages.append(self.conversation.bye(returned))

    def flush(self) -> int:
        """Sends as much as the socket takes, messages first; returns how many groups went out."""
        groups = 0
        try:
            while self._messages:
                self.socket.send(encode(self._messages[0]), zmq.NOBLOCK)
                self._messages.popleft()
            while self._outcomes and self.conversation.active:
                groups += self._send_outcome(self._outcomes[0])
                self._outcomes.popleft()
        except zmq.Again:
            pass  # at the high water mark; the next turn goes on where this one stopped
        return groups

    def reopen(self, now: float) -> None:
        """A fresh socket with a new identity; what the old one had not sent is dropped."""
        self.watch_handshakes(now)
        self._monitor.close()
        self.socket.close(linger=0)
        self._messages.clear()
        self.conversation.reopen(now)
        self._open_socket()

    def watch_handshakes(self, now: float) -> None:
        """Takes note of the handshakes that have ended; `refusals` judges them."""
        for ending in self._monitor.read():
            self.refusals.note(ending, now)

    def close(self) -> None:
        """Closes the socket; libzmq goes on sending in the background for its linger time."""
        self._monitor.close()
        self.socket.close()

    def _open_socket(self) -> None:
        self.socket = open_dealer(self._context, self._keys)
        # Before connecting: libzmq does not try again after a key was refused, and so tells it only once.
        self._monitor = HandshakeMonitor(self.socket)
        try:
            connect(self.socket, self.endpoint)
        except UserError:
            self.close()
            raise

    def _send_outcome(self, outcome: Outcome) -> int:
        run, session = self.conversation.run, self.conversation.session
        if isinstance(outcome, FailedDraw):
            reason = outcome.reason[:_REASON_LENGTH]
            failed = Failed(run=run, session=session, group_id=outcome.group_id, reason=reason)
            self.socket.send(encode(failed), zmq.NOBLOCK)
            return 0
        header = describe_images(
            outcome.images_NHWC,
            run=run,
            session=session,
            group_id=outcome.group_id,
            draw_seconds=outcome.draw_seconds,
            caption_cut=outcome.caption_cut,
        )
        self.socket.send(encode(header), _MORE)
        # copy=False: libzmq reads the engine's own array, which nothing writes to after the draw.
        self.socket.send(outcome.images_NHWC.data, zmq.NOBLOCK, copy=False)
        return 1
