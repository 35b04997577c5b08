"""The I/O thread of a worker: the only code that touches its ZeroMQ sockets.

 trainer ranks ⇄ Channel (Conversation) ─Tickets→ Assignments ─batch→ compute thread
                      ↑                                │   ↑               │
                      └──────────── outcomes ──────────┘   └── outcomes ───┘ (and a wake-up)

Each turn consumes commands, outcomes and messages, produces messages, and waits for a socket, a wake-up or
the next 0.1 s, whichever comes first. Nothing in it blocks, so heartbeats go on while a batch computes.
"""

import queue
import threading
import time
from collections import Counter, deque

import zmq

from generator_service.assignments import Assignments
from generator_service.channel import Channel
from generator_service.commands import Command, Equip, Leave
from generator_service.conversation import Conversation, Equipment, WorkerFacts
from generator_service.credit import credit_shares
from generator_service.endpoints import reachable
from generator_service.link_status import LinkStatus, observe
from generator_service.refusals import PATIENCE_SECONDS, refused_by_word
from protocol import PROTOCOL_VERSION
from protocol.errors import MalformedMessageError, UserError
from protocol.frames import decode_from_trainer
from protocol.generation import GenerationSpec
from protocol.keys import WorkerKeys
from protocol.messages import Cancel, Reject, Stop, Tickets, TrainerHeartbeat, TrainerMessage, Welcome
from protocol.sockets import received

FINISH_SECONDS = 7.0
"""A batch under way is finished before leaving only if it takes less than this."""
FLUSH_SECONDS = 1.0
TURN_MILLISECONDS = 100
WAKE_UPS_A_TURN = 64
SHORTEST_WAIT_SECONDS = 1.0
"""Below this a trainer that is there could not answer in time."""


class LinkLoop:
    """Runs until told to leave, refused, orphaned for too long, or broken."""

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        wake: "zmq.Socket[bytes]",
        connect: str,
        facts: WorkerFacts,
        assignments: Assignments,
        *,
        keys: WorkerKeys | None,
        wait_seconds: float,
        stop: threading.Event,
    ) -> None:
        self._context, self._wake, self._connect, self._facts = context, wake, connect, facts
        self._keys = keys
        self._wait_seconds = max(wait_seconds, SHORTEST_WAIT_SECONDS)
        self._assignments = assignments
        self._stop = stop
        self.commands: deque[Command] = deque()
        self.spec: queue.Queue[GenerationSpec | None] = queue.Queue()
        """For the compute thread, once; None when the end came before it."""
        self.abandoned = threading.Event()
        """Set when nobody will take what is being drawn."""
        self.failure: Exception | None = None
        self.told_at: float | None = None
        """When leaving began."""
        self.groups_sent = 0
        self.exact = False
        """Of the run: see `Welcome.exact`. Set before the spec is handed out."""
        self.malformed: Counter[str] = Counter()
        self._channels: dict[int, Channel] = {}
        self._run = ""
        self._equipment: Equipment | None = None
        self._groups_per_batch = 0
        self._wanted: dict[int, int] = {}
        self._leave_by: float | None = None
        self._ended = False
        self._publish_at = 0.0
        self.status = LinkStatus()
        """For any thread: replaced as a whole ten times a second, never changed."""

    def run(self) -> None:
        """The thread's body. Its end is always announced; `failure` says why if there is a reason."""
        try:
            self._open(0, self._connect, time.monotonic())
            while not self._ended:
                self._turn()
        except Exception as error:
            # Not swallowed: the compute thread raises it as the worker's end.
            self.failure = error
        finally:
            self.told_at = self.told_at or time.monotonic()
            self._publish(time.monotonic())
            self.abandoned.set()
            self._assignments.close()
            for channel in self._channels.values():
                channel.close()
            self._wake.close(linger=0)
            self.spec.put(None)

    def _turn(self) -> None:
        self._wait()
        now = time.monotonic()
        while self.commands:
            self._obey(self.commands.popleft(), now)
        for outcome in self._assignments.collect():
            if outcome.rank in self._channels:
                self._channels[outcome.rank].keep(outcome)
        for rank, channel in list(self._channels.items()):
            if self._channels.get(rank) is not channel:
                continue  # closed a moment ago: a resumed trainer has other ranks
            for frames in channel.receive():
                self._take(rank, channel, frames, now)
        if self._stop.is_set() and self._leave_by is None:
            self._begin_leaving(now, finish=self._assignments.left_seconds < FINISH_SECONDS)
        self._reopen_silent(now)
        self._speak(now)
        if now >= self._publish_at:
            self._publish(now)
            for channel in self._channels.values():
                channel.watch_handshakes(now)
        if self._leave_by is not None:
            drained = all(channel.drained for channel in self._channels.values())
            if now >= self._leave_by or (not self._assignments.drawing and drained):
                self._say_bye()
            return
        self._check_refused(now, PATIENCE_SECONDS)
        self._check_orphaned(now)

    def _wait(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake, zmq.POLLIN)
        for channel in self._channels.values():
            poller.register(channel.socket, zmq.POLLIN if channel.drained else zmq.POLLIN | zmq.POLLOUT)
        poller.poll(TURN_MILLISECONDS if self._assignments.may_sleep() else 0)
        for _ in received(self._wake, WAKE_UPS_A_TURN):
            pass

    def _obey(self, command: Command, now: float) -> None:
        match command:
            case Equip():
                self._equipment = command.equipment
                self._groups_per_batch = command.groups_per_batch
            case Leave():
                if self._leave_by is None:
                    self._begin_leaving(now, finish=False)

    def _take(self, rank: int, channel: Channel, frames: list[zmq.Frame], now: float) -> None:
        try:
            message = decode_from_trainer(frames)
            channel.conversation.receive(message, now)
        except MalformedMessageError as error:
            self.malformed[error.reason] += 1
            return
        self._act(rank, channel, message, now)

    def _act(self, rank: int, channel: Channel, message: TrainerMessage, now: float) -> None:
        match message:
            case Welcome():
                self._welcomed(rank, channel, message, now)
            case Tickets():
                self._assignments.add(rank, message.tickets, channel.unsent)
            case TrainerHeartbeat():
                self._wanted[rank] = message.wanted
                self._assignments.want(rank, message.wanted)
            case Cancel():
                self._assignments.cancel(rank, message.group_ids)
            case Stop():
                self._begin_leaving(now, finish=False)
            case Reject():
                if not message.retry:
                    raise refused_by_word(channel.endpoint, message.reason)

    def _welcomed(self, rank: int, channel: Channel, welcome: Welcome, now: float) -> None:
        if welcome.protocol != PROTOCOL_VERSION:
            raise refused_by_word(
                channel.endpoint, f"it speaks protocol {welcome.protocol}, this worker {PROTOCOL_VERSION}"
            )
        if self._run and welcome.run != self._run:
            raise refused_by_word(
                channel.endpoint, f"it runs {welcome.run}, this worker was equipped for {self._run}"
            )
        if not self._run:
            self._run = welcome.run
            self.exact = welcome.exact
            self.spec.put(welcome.generation)
        if rank == 0:
            self._set_endpoints(welcome.endpoints, now)

    def _set_endpoints(self, endpoints: tuple[str, ...], now: float) -> None:
        """Ranks beyond the first are reached at the addresses they tell; the first where it was found."""
        for rank in [rank for rank in self._channels if rank >= len(endpoints)]:
            self._channels.pop(rank).close()
            self._assignments.drop_rank(rank)
        for rank, told in enumerate(endpoints):
            endpoint, known = reachable(told, self._connect), self._channels.get(rank)
            if rank == 0 or (known is not None and known.endpoint == endpoint):
                continue
            if known is not None:
                known.close()
                self._assignments.drop_rank(rank)
            self._open(rank, endpoint, now)

    def _open(self, rank: int, endpoint: str, now: float) -> None:
        conversation = Conversation(self._facts, now, run=self._run)
        self._channels[rank] = Channel(self._context, endpoint, conversation, self._keys)

    def _reopen_silent(self, now: float) -> None:
        for rank, channel in self._channels.items():
            if channel.conversation.must_reopen(now):
                # The trainer gives these tickets out again; drawn groups are kept, it may still want them.
                self._assignments.drop_rank(rank)
                channel.reopen(now)

    def _speak(self, now: float) -> None:
        ranks = sorted(self._channels)
        shares = credit_shares(self._groups_per_batch, [self._wanted.get(rank, 0) for rank in ranks])
        vitals = self._assignments.vitals
        for rank, share in zip(ranks, shares, strict=True):
            credit = share if self._leave_by is None else 0
            channel = self._channels[rank]
            self.groups_sent += channel.speak(now, equipment=self._equipment, credit=credit, vitals=vitals)

    def _publish(self, now: float) -> None:
        self._publish_at = now + TURN_MILLISECONDS / 1000
        conversations, vitals = (
            [one.conversation for one in self._channels.values()],
            self._assignments.vitals,
        )
        self.status = observe(conversations, vitals, now, self.groups_sent, self.malformed, self.failure)

    def _check_refused(self, now: float, patience_seconds: float) -> None:
        for channel in self._channels.values():
            error = channel.refusals.error(now, patience_seconds)
            if error is not None:
                raise error

    def _check_orphaned(self, now: float) -> None:
        lost = [channel.conversation.lost_at for channel in self._channels.values()]
        since = [lost_at for lost_at in lost if lost_at is not None]
        if len(since) == len(lost) and now - max(since) >= self._wait_seconds:
            self._check_refused(now, 0.0)  # somebody is there after all, and hangs up
            raise UserError(
                "no trainer",
                expected=f"an answer within {self._wait_seconds:g} s",
                got="none",
                where=self._connect,
                mend="start the trainer, or give its address with --generator.connect",
            )

    def _begin_leaving(self, now: float, *, finish: bool) -> None:
        self.told_at = self.told_at or now
        self._leave_by = now + FINISH_SECONDS if finish else now
        self._assignments.close()

    def _say_bye(self) -> None:
        """Gives back every ticket that will not be drawn, and ends the loop."""
        self.abandoned.set()
        for rank, channel in self._channels.items():
            channel.say_bye(self._assignments.undrawn(rank))
        flush_by = time.monotonic() + FLUSH_SECONDS
        while not all(channel.drained for channel in self._channels.values()) and time.monotonic() < flush_by:
            for channel in self._channels.values():
                channel.flush()
            time.sleep(0.01)
        self._ended = True
