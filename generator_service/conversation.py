"""The worker's side of the wire to one trainer rank, without sockets and told the time.

            hello                welcome               equipped                ready, groups, heartbeats
 (re)open ────────→ greeting ───────────→ welcomed ───────────────→ active ⇄ tickets, cancel, heartbeat
     ↑                 │                     │                         │
     └─────────────────┴──── silence, or reject with retry ────────────┘

A socket that is opened again has a new identity, so the trainer hands out nothing to the old one any more.
"""

from dataclasses import dataclass

from protocol import PROTOCOL_VERSION
from protocol.errors import MalformedMessageError
from protocol.messages import (
    Bye,
    Equipped,
    Hello,
    Ready,
    Reject,
    Stop,
    Tickets,
    TrainerMessage,
    Welcome,
    WorkerHeartbeat,
    WorkerMessage,
)

GREETING_SECONDS = 5.0
"""How long a hello may stay unanswered before it is said again; later, `welcome.silence_seconds` counts."""
RETRY_SECONDS = 0.5
"""Pause before a hello after `reject` with retry."""


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """What a worker says of itself before it knows the spec."""

    worker: str
    device: str
    weights: str


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What it says of its engine."""

    content: str
    engine: str
    batch_images: int
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """How the compute thread is doing, in seconds: see `WorkerHeartbeat`."""

    idle_seconds: float
    batch_seconds: float


class Conversation:
    """Knows what to say to a rank next and when the rank counts as lost."""

    def __init__(self, facts: WorkerFacts, now: float, *, run: str = "") -> None:
        self._facts = facts
        self.run = run
        self.session = ""
        self.lost_at: float | None = now
        """Since when nobody has answered; None while the rank is there."""
        self.reopen(now)

    def reopen(self, now: float) -> None:
        """Begins again on a fresh socket, with the run and session last known."""
        self._welcome: Welcome | None = None
        self._greeted = False
        self._said: Equipment | None = None
        self._credit_said: int | None = None
        self._heard_at = now
        self._retry_at: float | None = None
        self._beat_at = now

    @property
    def welcomed(self) -> bool:
        """Whether the rank knows this worker and heartbeats are due."""
        return self._welcome is not None

    @property
    def active(self) -> bool:
        """Whether the rank knows the worker's engine: groups may be sent and tickets come."""
        return self._said is not None

    def receive(self, message: TrainerMessage, now: float) -> None:
        """Takes note of a message. Raises MalformedMessageError for one that must be dropped."""
        self._heard_at = now
        self.lost_at = None
        if isinstance(message, Welcome):
            self._welcome = message
            self.run, self.session = message.run, message.session
            self._said = None
            self._beat_at = now
        elif isinstance(message, Reject):
            if message.retry and self._retry_at is None:
                self._retry_at = now + RETRY_SECONDS
        elif isinstance(message, Stop):
            return
        elif (message.run, message.session) != (self.run, self.session) or self._welcome is None:
            raise MalformedMessageError("session", f"{type(message).__name__} of session {message.session!r}")
        elif isinstance(message, Tickets) and self._said is None:
            raise MalformedMessageError("order", "tickets before equipped")

    def must_reopen(self, now: float) -> bool:
        """Whether the socket has to be replaced now. Notes since when the rank is lost."""
        if self._retry_at is not None:
            return now >= self._retry_at
        patience = self._welcome.silence_seconds if self._welcome else GREETING_SECONDS
        silent = now - self._heard_at >= patience
        if silent and self.lost_at is None:
            self.lost_at = now
        return silent

    def outgoing(
        self, now: float, *, equipment: Equipment | None, credit: int, vitals: Vitals
    ) -> list[WorkerMessage]:
        """All that is to be said now, in order. What is returned counts as said."""
        said: list[WorkerMessage] = []
        if not self._greeted:
            self._greeted = True
            said.append(self._hello())
        if self._welcome is None or self._retry_at is not None:
            return said
        if equipment is not None and equipment != self._said:
            self._said = equipment
            self._credit_said = None
            said.append(self._equipped_message(equipment))
        if self._said is not None and credit != self._credit_said:
            self._credit_said = credit
            said.append(Ready(run=self.run, session=self.session, credit=credit))
        if now >= self._beat_at:
            self._beat_at = now + self._welcome.heartbeat_seconds
            said.append(self._heartbeat(vitals))
        return said

    def say_ready_again(self) -> None:
        """Repeats the credit when groups are sent, so that no lost message can leave a rank waiting."""
        self._credit_said = None

    def bye(self, returned: tuple[int, ...]) -> Bye:
        """The last message; `returned` are group ids."""
        return Bye(run=self.run, session=self.session, returned=returned)

    def _hello(self) -> Hello:
        facts = self._facts
        return Hello(
            run=self.run,
            session=self.session,
            protocol=PROTOCOL_VERSION,
            worker=facts.worker,
            device=facts.device,
            weights=facts.weights,
        )

    def _equipped_message(self, equipment: Equipment) -> Equipped:
        return Equipped(
            run=self.run,
            session=self.session,
            content=equipment.content,
            engine=equipment.engine,
            batch_images=equipment.batch_images,
            exact=equipment.exact,
        )

    def _heartbeat(self, vitals: Vitals) -> WorkerHeartbeat:
        return WorkerHeartbeat(
            run=self.run,
            session=self.session,
            idle_seconds=vitals.idle_seconds,
            batch_seconds=vitals.batch_seconds,
        )
