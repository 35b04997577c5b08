"""Answers every message of every worker. Pure: messages and times in, messages out; arrivals pile up.

hello ─→ welcome, or reject          ready ─→ tickets (credit less what it holds, within the window)
equipped ─→ (accepted), or reject    group ─→ arrival, duplicate or unwanted
failed, bye, heartbeat ─→ leases     tick ─→ tickets, heartbeats, cancel of expired leases, deaths by silence
"""

from collections import Counter, deque

import zmq

from protocol import PROTOCOL_VERSION
from protocol.errors import MalformedMessageError
from protocol.messages import (
    Bye,
    Cancel,
    Equipped,
    Failed,
    Group,
    Hello,
    Ready,
    Reject,
    Stop,
    Tickets,
    TrainerHeartbeat,
    TrainerMessage,
    Welcome,
    WorkerHeartbeat,
    WorkerMessage,
)
from protocol.payload import unpack_images
from trainer.batch import DrawnGroup
from trainer.errors import TooManyDeadLettersError
from trainer.feed import reasons
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.leases import Leases
from trainer.feed.peers import Peer, Peers
from trainer.feed.received import Received
from trainer.plan import Plan

Outgoing = tuple[bytes, TrainerMessage]

DEAD_LETTERS_TOLERATED = 20
DEAD_SHARE_TOLERATED = 0.01
LEASE_BATCHES = 4
"""A lease lasts at least this many of the worker's own p95 batch times."""
HEAD_BATCHES = 2
"""In ticket order, what others wait for is issued again after so many p95 batch times of its holder."""


class Desk:
    """One rank's side of every conversation."""

    def __init__(self, plan: Plan, leases: Leases, settings: DeskSettings) -> None:
        self._plan = plan
        self._settings = settings
        self._next_heartbeat = 0.0
        self._cancelled: list[Outgoing] = []
        self.leases = leases
        self.peers = Peers()
        self.content = settings.content
        self.arrivals: deque[DrawnGroup] = deque()
        self.refused: Counter[str] = Counter()
        """Messages and groups not taken, by reason."""
        self.groups_received = 0
        self.issued_again = 0
        """Tickets given to a second worker because later groups waited for them."""
        self.starved = False
        """Whether a worker was given less than it could take."""
        self.captions_cut = 0
        """Groups taken with a caption longer than the text encoder reads."""

    def handle(
        self, identity: bytes, message: WorkerMessage, payload: zmq.Frame | None, now: float, key: str = ""
    ) -> list[Outgoing]:
        """The answers to one message. `key`: the sender's public key. Raises TooManyDeadLettersError."""
        if isinstance(message, Hello):
            return self._greet(identity, message, now, key)
        peer = self.peers.get(identity)
        # An identity that was freed may come back with another worker behind it.
        if peer is None or peer.key != key:
            return [self._reject(identity, "unknown_peer", "say hello first", retry=True)]
        if message.run != self._plan.digest:
            self.lose(identity)
            return [self._reject(identity, "another_run", f"this trainer runs {self._plan.digest}")]
        peer.last_heard = now
        match message:
            case Equipped():
                peer.claims = message
                return self._equip(peer) + self.grant(now)
            case Ready():
                if message.session != self._settings.session:
                    # Of a worker that has not yet noticed that the trainer began anew.
                    self.refused["another_session"] += 1
                    peer.credit = 0
                else:
                    peer.credit = message.credit
                    return self._grant_to(peer, now)
            case Group():
                assert payload is not None, "frames.decode_from_worker delivers a group with its payload"
                # The tick after a turn grants anew, once for all groups that came in it.
                return self._take(peer, message, payload, now)
            case Failed():
                self._bury_or_retry(peer, message.group_id, message.reason)
            case WorkerHeartbeat():
                peer.last_progress = max(peer.last_progress, now - message.idle_seconds)
                peer.batch_seconds = message.batch_seconds
                return []  # as after a group
            case Bye():
                self.leases.give_back(identity, message.returned)
                self.lose(identity)
        return self.grant(now)

    def refuse(self, identity: bytes, error: MalformedMessageError, now: float) -> list[Outgoing]:
        """Counts bytes that are no message, and tells a worker that is known."""
        self.refused[error.reason] += 1
        peer = self.peers.get(identity)
        if peer is None:
            return []
        peer.last_heard = now
        return [(identity, Reject(run=self._plan.digest, session=self._settings.session, reason=str(error)))]

    def shut_out(self, identity: bytes) -> list[Outgoing]:
        """Who is behind this socket is not admitted any more; a worker that is known is told so once."""
        known = self.peers.get(identity) is not None
        self.lose(identity)
        refusal = self._reject(identity, "not_admitted", reasons.NOT_ADMITTED)
        return [refusal] if known else []

    def lose(self, identity: bytes, *, silent: bool = False) -> None:
        """A worker is gone: its tickets go to others."""
        self.leases.lose_worker(identity, self.peers.names)
        self.peers.drop(identity, silent=silent)

    def redeal(self, leases: Leases) -> None:
        """Other ids are wanted from now on, as after a switch of mode. Workers stay, and are told to drop
        what they hold; groups that have arrived and are wanted still are kept."""
        self._cancelled += [
            (worker, Cancel(**self._stamp, group_ids=group_ids))
            for worker, group_ids in self.leases.issued.items()
        ]
        leases.dead |= self.leases.dead
        leases.trained += self.leases.trained
        leases.target += self.leases.trained
        self.leases = leases
        arrived = list(self.arrivals)
        self.arrivals.clear()
        self.arrivals += [g for g in arrived if leases.receive(g.group_id) is Received.ACCEPTED]

    def tick(self, now: float) -> list[Outgoing]:
        """What time alone brings about. To be called several times a second."""
        outgoing = self._cancel_redealt()
        for peer in self.peers.silent(now, self._settings.silence_seconds):
            self.refused["silent_worker"] += 1
            self.lose(peer.identity, silent=True)
        for peer in self.peers:
            outgoing += self._equip(peer)
        names = self.peers.names
        for peer in self.peers:
            lease_seconds = max(self._settings.lease_seconds, LEASE_BATCHES * peer.batch_seconds)
            expired = self.leases.expire(peer.identity, peer.last_progress, lease_seconds, now, names)
            if expired:
                self.refused["lease_expired"] += len(expired)
                outgoing.append((peer.identity, Cancel(**self._stamp, group_ids=tuple(expired))))
        granted = self.grant(now)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._settings.heartbeat_seconds
            beat = TrainerHeartbeat(**self._stamp, wanted=self.leases.wanted, buffered=len(self.arrivals))
            outgoing += [(peer.identity, beat) for peer in self.peers]
        return outgoing + granted

    def grant(self, now: float) -> list[Outgoing]:
        """Tickets, as the window allows, to every worker with half of its credit free: fewer messages than
        one by one, and who holds the other half has enough to do."""
        cancelled = self._cancel_redealt()
        self.starved = False
        held = self.leases.held
        free_of = [(p, p.credit - held(p.identity)) for p in self.peers if p.credit and p.equipped]
        # Most often nobody has any free, and there may be a hundred workers and a thousand turns a second.
        hungry = [(peer, free) for peer, free in free_of if free > 0]
        return cancelled + (self._grant(hungry, now) if hungry else [])

    def _cancel_redealt(self) -> list[Outgoing]:
        """Before any ticket: of ids that are wanted still, a later word would drop the new ones."""
        cancelled, self._cancelled = self._cancelled, []
        return cancelled

    def _grant_to(self, peer: Peer, now: float) -> list[Outgoing]:
        cancelled = self._cancel_redealt()
        free = peer.credit - self.leases.held(peer.identity)
        return cancelled + (self._grant([(peer, free)], now) if peer.equipped and free > 0 else [])

    def _grant(self, hungry: list[tuple[Peer, int]], now: float) -> list[Outgoing]:
        outgoing: list[Outgoing] = []
        equipped = self.peers.equipped
        patience = {p.identity: HEAD_BATCHES * p.batch_seconds for p in self.peers if p.batch_seconds}
        for peer, free in hungry:
            ids = self.leases.issue_head_again(peer.identity, now, patience)
            self.issued_again += len(ids)
            if 2 * free >= peer.credit:
                ids += self.leases.issue(peer.identity, free - len(ids), now, equipped)
                self.starved |= len(ids) < free
            if ids:
                tickets = tuple(self._plan.ticket(group_id) for group_id in ids)
                outgoing.append((peer.identity, Tickets(**self._stamp, tickets=tickets)))
        return outgoing

    def farewell(self, reason: str) -> list[Outgoing]:
        """Tells every worker that the run is over for it."""
        return [(peer.identity, Stop(**self._stamp, reason=reason)) for peer in self.peers]

    @property
    def _stamp(self) -> dict[str, str]:
        return {"run": self._plan.digest, "session": self._settings.session}

    def _reject(self, identity: bytes, kind: str, reason: str, *, retry: bool = False) -> Outgoing:
        self.refused[kind] += 1
        return identity, Reject(**self._stamp, reason=reason, retry=retry)

    def _greet(self, identity: bytes, hello: Hello, now: float, key: str) -> list[Outgoing]:
        if hello.protocol != PROTOCOL_VERSION:
            reason = reasons.another_protocol(hello.protocol)
            return [self._reject(identity, "protocol_version", reason)]
        if hello.run not in ("", self._plan.digest):
            reason = reasons.another_run(self._plan.digest, hello.run)
            return [self._reject(identity, "another_run", reason)]
        self.leases.lose_worker(identity, self.peers.names)
        self.peers.greet(identity, hello, now, key)
        welcome = Welcome(
            **self._stamp,
            protocol=PROTOCOL_VERSION,
            endpoints=self._settings.endpoints,
            generation=self._plan.spec,
            heartbeat_seconds=self._settings.heartbeat_seconds,
            silence_seconds=self._settings.silence_seconds,
            exact=self._settings.exact,
        )
        return [(identity, welcome)]

    def _equip(self, peer: Peer) -> list[Outgoing]:
        """Accepts or refuses the engine that a worker has told of, once the run's content hash is known."""
        claims = peer.claims
        if claims is None or not (self.content or not self._settings.follows):
            return []
        if self._settings.exact and not claims.exact:
            self.lose(peer.identity)
            return [self._reject(peer.identity, "not_exact", reasons.not_exact(peer.name))]
        content = f"{claims.content} by {claims.engine}" if self._settings.exact else claims.content
        if self.content and content != self.content:
            return [self._refuse_content(peer, content)]
        self.content = content
        self.peers.equip(peer, claims)
        return []

    def _refuse_content(self, peer: Peer, content: str) -> Outgoing:
        self.lose(peer.identity)
        why = reasons.another_content(peer.name, self.content, content, exact=self._settings.exact)
        return self._reject(peer.identity, "another_content", why)

    def _take(self, peer: Peer, group: Group, payload: zmq.Frame, now: float) -> list[Outgoing]:
        """Keeps a group that is wanted; whoever else holds its ticket may drop it."""
        spec = self._plan.spec
        try:
            images_NHWC = unpack_images(group, payload, shape=(spec.views, spec.size, spec.size, 3))
        except MalformedMessageError as error:
            self.refused[error.reason] += 1
            self._bury_or_retry(peer, group.group_id, str(error))
            return []
        if not peer.equipped:
            self.refused["not_equipped"] += 1
            return []
        peer.last_progress = now
        others = [worker for worker in self.leases.holders(group.group_id) if worker != peer.identity]
        verdict = self.leases.receive(group.group_id)
        if verdict is not Received.ACCEPTED:
            self.refused[verdict.value] += 1
            return []
        self.groups_received += 1
        self.captions_cut += group.caption_cut
        drawn = DrawnGroup(
            ticket=self._plan.ticket(group.group_id),
            images_NHWC=images_NHWC,
            source="online",
            worker=peer.name,
            content=peer.content,
            engine=peer.engine,
            digest=group.xxh3,
            arrived_seconds=now,
        )
        self.arrivals.append(drawn)
        return [(worker, Cancel(**self._stamp, group_ids=(group.group_id,))) for worker in others]

    def _bury_or_retry(self, peer: Peer, group_id: int, reason: str) -> None:
        self.leases.fail(peer.identity, group_id, reason, self.peers.equipped)
        dead = len(self.leases.dead)
        if dead >= DEAD_LETTERS_TOLERATED and dead > DEAD_SHARE_TOLERATED * (dead + self.leases.trained):
            total = dead + self.leases.trained
            raise TooManyDeadLettersError(
                f"{dead} of {total} tickets can't be drawn, last: group {group_id}: {reason}"
            )
