"""The thread that owns the trainer's socket.

Everything it decides is the desk's; everything it knows is behind one lock, which the training thread takes
only to fetch arrivals, to report what was trained, and to read counts.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import zmq

from protocol.errors import MalformedMessageError
from protocol.frames import decode_from_worker, encode
from protocol.keys import TrainerKeys
from protocol.sockets import bind_router, received
from trainer.batch import DrawnGroup
from trainer.errors import FeedFailedError
from trainer.feed.desk import Desk, Outgoing
from trainer.feed.gate import Gate, key_of
from trainer.feed.leases import Leases

POLL_MILLISECONDS = 100
GONE = (zmq.EHOSTUNREACH, zmq.EAGAIN)
"""Errors of a send to a worker that has left or takes nothing any more."""
MESSAGES_A_TURN = 64
TICK_SECONDS = 0.05
"""Between looks at what time brings about: there may be a thousand turns a second."""
LATECOMER_SECONDS = 3.0
"""A worker that waits tries to connect every 2 s at the rarest (protocol.sockets), and then says hello."""


@dataclass(frozen=True, kw_only=True)
class FeedStatus:
    """What the progress line and the metrics tell of the stream."""

    workers: int
    groups_received: int
    buffered: int
    leased: int
    wanted: int
    dead_letters: int
    refused: dict[str, int]
    joined: int = 0
    """Workers ever welcomed in this session, those that came back again each time."""
    connected: int = 0
    """Those that have not left; `workers` are the ones among them whose engine is built."""
    left_silently: bool = False
    """Whether the last to leave had stopped beating."""
    heard_seconds_ago: float | None = None
    """Since any worker, gone or not, was heard; None before the first."""
    oldest_lease_seconds: float = 0.0
    issued_again: int = 0
    """Tickets given to a second worker, in ticket order, because others waited for them."""
    captions_cut: int = 0
    """Groups received whose caption was longer than the text encoder reads."""
    failure: str = ""
    """What ended the feed's thread, which ends the run; empty while it lives."""


class Feed:
    """Runs a desk on a bound ROUTER socket. `start` binds; `stop` ends the thread within 3 seconds."""

    def __init__(self, make_desk: Callable[[str], Desk], bind: str, keys: TrainerKeys | None = None) -> None:
        """`make_desk` gets the endpoint that was really bound (its port may have been a wildcard).

        With `keys` only admitted workers are heard. Raises UserError.
        """
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wake_address = f"inproc://feed-{id(self)}"
        self._gate: Gate | None = None
        try:
            if keys is not None:
                self._gate = Gate(self._context, keys)
            self._router = bind_router(self._context, bind, keys)
        except BaseException:
            if self._gate is not None:
                self._gate.close()
            self._context.term()
            raise
        if self._gate is not None:
            self._gate.watch(self._router)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._desk = make_desk(self.endpoint)
        self._changed = threading.Condition()
        self._waker = self._context.socket(zmq.PAIR)
        self._waker.bind(self._wake_address)
        self._stopping = False
        self._stop_reason = ""
        self._failure: BaseException | None = None
        self._started_at = 0.0
        self._tick_at = 0.0
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begins to answer workers."""
        self._started_at = time.monotonic()
        self._thread.start()

    def linger(self, stop: threading.Event) -> None:
        """Stays open until workers that waited for the start have come, so that `stop` reaches them.

        It matters where a run or a pool turns out to be finished: nobody tells them otherwise.
        """
        stop.wait(max(0.0, self._started_at + LATECOMER_SECONDS - time.monotonic()))

    # called by the training thread

    def take(self, count: int) -> list[DrawnGroup]:
        """At most `count` arrived groups, oldest first. Raises FeedFailedError."""
        with self._changed:
            self._raise_failure()
            arrivals = self._desk.arrivals
            return [arrivals.popleft() for _ in range(min(count, len(arrivals)))]

    def wait(self, seconds: float) -> None:
        """Returns when something arrived or the time is over."""
        with self._changed:
            if not self._desk.arrivals and self._failure is None:
                self._changed.wait(seconds)

    def trained(self, group_ids: Iterable[int]) -> None:
        """These groups were trained on for the first time: their slots are free.

        A feed that has died says so at the next `take`: by then what was trained is noted everywhere.
        """
        with self._changed:
            if self._failure is not None:
                return
            self._desk.leases.train(group_ids)
            starved = self._desk.starved
        if starved:
            self._wake_up()

    def redeal(self, leases: Leases) -> None:
        """Other ids are wanted from now on: see `Desk.redeal`."""
        with self._changed:
            self._raise_failure()
            self._desk.redeal(leases)
        self._wake_up()

    def claim(self) -> int:
        """The next id, for another source to serve."""
        with self._changed:
            return self._desk.leases.claim()

    def status(self) -> FeedStatus:
        """Counts as they are now."""
        with self._changed:
            now, desk = time.monotonic(), self._desk
            heard, issued = desk.peers.last_heard, desk.leases.oldest_issue
            return FeedStatus(
                workers=len(desk.peers.equipped),
                groups_received=desk.groups_received,
                buffered=len(desk.arrivals),
                leased=desk.leases.leased,
                wanted=desk.leases.wanted,
                dead_letters=len(desk.leases.dead),
                refused=dict(desk.refused),
                joined=desk.peers.joined,
                connected=len(desk.peers),
                left_silently=desk.peers.left_silently,
                heard_seconds_ago=None if heard is None else now - heard,
                oldest_lease_seconds=0.0 if issued is None else now - issued,
                issued_again=desk.issued_again,
                captions_cut=desk.captions_cut,
                failure="" if self._failure is None else str(self._failure) or repr(self._failure),
            )

    def dead_letters(self) -> dict[int, str]:
        """Tickets given up in this session, with their reasons."""
        with self._changed:
            return dict(self._desk.leases.dead)

    @property
    def content(self) -> str:
        """The content hash that all workers share; empty before the first."""
        with self._changed:
            return self._desk.content

    def settle_content(self, content: str) -> None:
        """The content hash of the run, as its first rank found it: see `DeskSettings.follows`."""
        with self._changed:
            self._desk.content = content

    def stop(self, reason: str) -> None:
        """Tells every worker to stop, then closes. Safe to call twice, and before `start`.

        With an empty reason it only closes: workers wait for the run to go on.
        """
        if self._context.closed:
            return
        self._stop_reason, self._stopping = reason, True
        if self._thread.is_alive():
            self._wake_up()
            self._thread.join(timeout=3)
        self._waker.close(linger=0)
        if not self._thread.is_alive():
            if self._gate is not None:
                self._gate.close()
            self._router.close(linger=500)
            self._context.term()

    def _wake_up(self) -> None:
        # Waiting would be for ever where the thread has just ended, and needless where wake-ups wait already.
        with contextlib.suppress(zmq.Again):
            self._waker.send(b"", zmq.NOBLOCK)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise FeedFailedError(f"the feed stopped: {self._failure}") from self._failure

    # the feed's own thread

    def _run(self) -> None:
        wake = self._context.socket(zmq.PAIR)
        try:
            wake.connect(self._wake_address)
            poller = zmq.Poller()
            poller.register(self._router, zmq.POLLIN)
            poller.register(wake, zmq.POLLIN)
            if self._gate is not None:
                poller.register(self._gate.socket, zmq.POLLIN)
            while not self._stopping:
                ready = dict(poller.poll(POLL_MILLISECONDS))
                if wake in ready:
                    wake.recv()
                if self._gate is not None:
                    self._guard(self._gate)
                self._turn(self._router in ready)
            if self._stop_reason:
                with self._changed:
                    self._send(self._desk.farewell(self._stop_reason))
        except BaseException as error:  # carried to the training thread, which raises it
            with self._changed:
                self._failure = error
                self._changed.notify_all()
        finally:
            wake.close(linger=0)

    def _guard(self, gate: Gate) -> None:
        """Before anything is read: handshakes are answered, and who was revoked loses its tickets."""
        failed = gate.answer()
        with self._changed:
            self._desk.refused.update(failed)
            for peer in self._desk.peers:
                if not gate.admits(peer.key):
                    self._send(self._desk.shut_out(peer.identity))

    def _turn(self, readable: bool) -> None:
        with self._changed:
            before = len(self._desk.arrivals)
            for frames in received(self._router, MESSAGES_A_TURN if readable else 0):
                self._send(self._answer(frames))
            now = time.monotonic()
            if now >= self._tick_at:
                self._tick_at = now + TICK_SECONDS
                self._send(self._desk.tick(now))
            else:
                self._send(self._desk.grant(now))
            if len(self._desk.arrivals) > before:
                self._changed.notify_all()

    def _answer(self, frames: list[zmq.Frame]) -> list[Outgoing]:
        now = time.monotonic()
        identity = frames[0].bytes
        key = key_of(frames[0]) if self._gate is not None else ""
        if self._gate is not None and not self._gate.admits(key):
            return self._desk.shut_out(identity)
        try:
            message, payload = decode_from_worker(frames[1:])
        except MalformedMessageError as error:
            return self._desk.refuse(identity, error, now)
        return self._desk.handle(identity, message, payload, now, key)

    def _send(self, outgoing: list[Outgoing]) -> None:
        for identity, message in outgoing:
            try:
                self._router.send_multipart([identity, encode(message)], zmq.NOBLOCK)
            except zmq.ZMQError as error:
                if error.errno not in GONE:
                    raise
                self._desk.lose(identity)
