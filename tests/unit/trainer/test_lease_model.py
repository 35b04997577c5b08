"""The lease machine under every interleaving that hypothesis finds, against a plain model of the promises.

The model lists this rank's ids instead of computing them, keeps the seconds that each lease has left instead
of times, and counts what happened to each ticket.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trainer.done import DoneIds
from trainer.feed.leases import Leases
from trainer.feed.received import Received

DONE = frozenset({0, 1, 2, 5, 9})
TARGET, WINDOW, LEASE_SECONDS, HEAD_PATIENCE_SECONDS = 12, 5, 10, 3
SOCKETS = (b"a", b"b", b"c", b"a once more")
PICKS = st.integers(0, 3)
"""Of the workers that are there, or of the tickets that one holds."""
IDS = st.integers(0, 60)
SECONDS = st.integers(0, 8)
"""Whole ones, which floats add up exactly."""


def _name(socket: bytes) -> str:
    """Of the worker behind a socket: one comes back on another."""
    return socket.decode()[0]


@dataclass
class Ticket:
    """What happened to one id so far."""

    seconds_left: dict[bytes, int] = field(default_factory=dict)
    """Of the lease of each worker that holds it."""
    held_for: dict[bytes, int] = field(default_factory=dict)
    """Seconds since it was issued to them."""
    received: bool = False
    failures: list[bytes] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)
    """Times that each worker died or stalled with it, as far as they count."""
    losses_alone: Counter[str] = field(default_factory=Counter)
    sent_alone: bool = False

    @property
    def is_for_one_alone(self) -> bool:
        """It may have killed three."""
        return self.losses.total() >= 3


class LeaseModel(RuleBasedStateMachine):
    """Workers come, draw, stall and die; groups of any id arrive; training takes what came."""

    in_order = False

    def __init__(self) -> None:
        super().__init__()
        self.begin((0, 1))

    @initialize(place=st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)]))
    def begin(self, place: tuple[int, int]) -> None:
        rank, world = place
        self.mine = [group_id for group_id in range(400) if group_id not in DONE][rank::world]
        self.leases = Leases(
            DoneIds(3, [5, 9]),
            target=TARGET,
            window=WINDOW,
            in_order=self.in_order,
            rank=rank,
            world=world,
        )
        self.now = 0
        self.alive: set[bytes] = set()
        self.last_progress: dict[bytes, float] = {}
        self.live: dict[int, Ticket] = {}
        self.trained: list[int] = []
        self.dead: set[int] = set()
        self.join(b"a")

    # what the model says

    def worker(self, pick: int) -> bytes:
        """One that is there."""
        return sorted(self.alive)[pick % len(self.alive)]

    def held_by(self, worker: bytes) -> list[int]:
        return sorted(i for i, ticket in self.live.items() if worker in ticket.seconds_left)

    def waiting(self) -> list[int]:
        return sorted(i for i, t in self.live.items() if not t.received and not t.seconds_left)

    def never_issued(self) -> list[int]:
        return [i for i in self.mine if i not in self.live and i not in self.trained and i not in self.dead]

    def room(self) -> int:
        """New ids that may be issued: the window's, and the promise's."""
        return min(WINDOW - len(self.live), TARGET - len(self.trained) - len(self.live))

    def may_take(self, worker: bytes, group_id: int) -> bool:
        """Nobody is asked again for what it has failed, while there is another."""
        failed = self.live[group_id].failures
        return worker not in failed or self.alive.issubset(failed)

    def to_issue(self, worker: bytes, count: int) -> list[int]:
        """Where no ticket waits to be sent alone: returned ones first."""
        returned = [i for i in self.waiting() if self.may_take(worker, i)]
        issued = [i for i in returned if not self.live[i].is_for_one_alone][:count]
        return issued + self.never_issued()[: max(0, min(count - len(issued), self.room()))]

    def is_wanted_early(self, group_id: int) -> bool:
        """One that was never issued here: if it is among those that the run will train on, and has room."""
        unissued = self.never_issued()
        promised = unissued[: TARGET - len(self.trained) - len(self.live)]
        if group_id not in promised:
            return False
        lower = promised.index(group_id) if self.in_order else 0
        return len(self.live) + lower < WINDOW

    def hand(self, worker: bytes, group_id: int) -> None:
        ticket = self.live.setdefault(group_id, Ticket())
        ticket.seconds_left[worker] = LEASE_SECONDS
        ticket.held_for[worker] = 0

    def take_back(self, worker: bytes, group_id: int) -> Ticket:
        ticket = self.live[group_id]
        del ticket.seconds_left[worker], ticket.held_for[worker]
        return ticket

    def bury(self, group_id: int) -> None:
        del self.live[group_id]
        self.dead.add(group_id)

    def names(self) -> dict[bytes, str]:
        return {socket: _name(socket) for socket in self.alive}

    def lose(self, worker: bytes, group_ids: Iterable[int], others: set[str]) -> None:
        """`others`: names of all who could be asked."""
        for group_id in group_ids:
            ticket = self.take_back(worker, group_id)
            for losses in (ticket.losses, ticket.losses_alone)[: 1 + ticket.sent_alone]:
                if _name(worker) not in losses or others.issubset(losses):
                    losses[_name(worker)] += 1
            if ticket.losses_alone.total() >= 2:
                self.bury(group_id)

    # what happens

    @rule(worker=st.sampled_from(SOCKETS))
    def join(self, worker: bytes) -> None:
        if worker not in self.alive:
            self.alive.add(worker)
            self.last_progress[worker] = self.now

    @precondition(lambda self: self.alive)
    @rule(pick=PICKS, count=st.integers(0, 4))
    def issue(self, pick: int, count: int) -> None:
        worker = self.worker(pick)
        held = self.held_by(worker)
        alone = [i for i, ticket in self.live.items() if ticket.is_for_one_alone and not ticket.received]
        expected = self.to_issue(worker, count)
        issued = self.leases.issue(worker, count, self.now, sorted(self.alive))
        if set(held) & set(alone):
            assert issued == [], "nothing may stand beside it"
        elif set(issued) & set(alone):
            assert (len(issued), count > 0, held) == (1, True, [])
            assert self.may_take(worker, issued[0])
            self.live[issued[0]].sent_alone = True
        elif issued or not set(self.waiting()) & set(alone):
            assert issued == expected
        for group_id in issued:
            assert group_id in self.mine
            self.hand(worker, group_id)

    @precondition(lambda self: self.alive)
    @rule(pick=PICKS, place=PICKS)
    def draw(self, pick: int, place: int) -> None:
        if held := self.held_by(self.worker(pick)):
            self.receive(held[place % len(held)])

    @rule(group_id=IDS)
    def receive(self, group_id: int) -> None:
        """From whomever: a worker of an earlier session, or one that took it for another rank."""
        ticket = self.live.get(group_id)
        early = ticket is None and self.is_wanted_early(group_id)
        verdict = self.leases.receive(group_id)
        if early or (ticket and not ticket.received):
            assert verdict is Received.ACCEPTED
            assert group_id in self.mine
            self.live[group_id] = Ticket(received=True)
        elif ticket or group_id in self.trained:
            assert verdict is Received.DUPLICATE
        else:
            assert verdict is not Received.ACCEPTED

    @precondition(lambda self: any(ticket.received for ticket in self.live.values()))
    @rule()
    def train(self) -> None:
        group_id = min(i for i, ticket in self.live.items() if ticket.received)
        del self.live[group_id]
        self.trained.append(group_id)
        self.leases.train([group_id])

    @precondition(lambda self: self.alive)
    @rule(pick=PICKS, place=PICKS, other=st.none() | IDS)
    def fail(self, pick: int, place: int, other: int | None) -> None:
        worker = self.worker(pick)
        held = self.held_by(worker)
        group_id = held[place % len(held)] if held and other is None else other or 0
        buried = self.leases.fail(worker, group_id, "no", sorted(self.alive))
        if group_id not in held:
            assert not buried
            return
        failures = self.take_back(worker, group_id).failures
        failures.append(worker)
        assert buried == (len(failures) >= 2 and (len(set(failures)) >= 2 or self.alive.issubset(failures)))
        if buried:
            self.bury(group_id)

    @precondition(lambda self: self.alive)
    @rule(pick=PICKS, group_ids=st.sets(st.integers(3, 20), max_size=6))
    def give_back(self, pick: int, group_ids: set[int]) -> None:
        worker = self.worker(pick)
        self.leases.give_back(worker, group_ids)
        for group_id in group_ids.intersection(self.held_by(worker)):
            self.take_back(worker, group_id)

    @precondition(lambda self: self.alive)
    @rule(pick=PICKS)
    def die(self, pick: int) -> None:
        worker, names = self.worker(pick), self.names()
        self.leases.lose_worker(worker, names)
        self.lose(worker, self.held_by(worker), set(names.values()))
        self.alive.discard(worker)

    @precondition(lambda self: self.alive)
    @rule(picks=st.lists(PICKS, min_size=1, max_size=4), count=st.integers(1, 2))
    def die_of_it(self, picks: list[int], count: int) -> None:
        """One after the other takes what the last one left behind, dies and comes back."""
        for pick in picks:
            worker = self.worker(pick)
            self.issue(pick, count)
            self.die(pick)
            self.join(worker)

    @precondition(lambda self: self.alive)
    @rule(pick=PICKS, idle=SECONDS)
    def report_progress(self, pick: int, idle: int) -> None:
        """It made some so many seconds ago, which renews whatever it holds, and shortens no lease."""
        worker = self.worker(pick)
        self.last_progress[worker] = max(self.last_progress[worker], self.now - idle)
        for group_id in self.held_by(worker):
            left = self.live[group_id].seconds_left
            left[worker] = max(left[worker], LEASE_SECONDS - idle)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        for ticket in self.live.values():
            for worker in ticket.seconds_left:
                ticket.seconds_left[worker] -= seconds
                ticket.held_for[worker] += seconds
        names = self.names()
        for worker in sorted(self.alive):
            late = [i for i in self.held_by(worker) if self.live[i].seconds_left[worker] < 0]
            renewed = self.last_progress[worker]
            assert self.leases.expire(worker, renewed, LEASE_SECONDS, self.now, names) == late
            self.lose(worker, late, set(names.values()))

    # what holds at any time

    @invariant()
    def both_know_the_same(self) -> None:
        leases, held = self.leases, {worker: tuple(self.held_by(worker)) for worker in self.alive}
        assert leases.issued == {worker: ids for worker, ids in held.items() if ids}
        assert leases.leased == sum(map(len, held.values()))
        assert (leases.live, leases.trained) == (len(self.live), len(self.trained))
        assert leases.dead.keys() == self.dead
        assert leases.wanted == len(self.waiting()) + max(0, self.room())
        ages = [age for ticket in self.live.values() for age in ticket.held_for.values()]
        assert leases.oldest_issue == (self.now - max(ages) if ages else None)

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.live) <= WINDOW
        assert len(self.live) + len(self.trained) <= TARGET
        assert len(self.trained) == len(set(self.trained))
        assert {*self.live, *self.trained, *self.dead} <= set(self.mine)

    def teardown(self) -> None:
        """Whatever happened, one good worker finishes the run, with no id lost, doubled or out of plan."""
        while self.alive:
            self.die(0)
        self.join(b"good")
        for _ in range(200):
            for group_id in self.leases.issue(b"good", 2, self.now, [b"good"]):
                self.hand(b"good", group_id)
                self.receive(group_id)
            while any(ticket.received for ticket in self.live.values()):
                self.train()
        assert sorted(self.trained) == [i for i in self.mine if i not in self.dead][:TARGET]


LeaseModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_lease_model = LeaseModel.TestCase


class InOrderLeaseModel(LeaseModel):
    """The same, with heads issued a second time."""

    in_order = True

    def to_issue_again(self, worker: bytes) -> list[int]:
        """The lowest that has not come, if a later one has, and its one holder took too long."""
        missing = [i for i, ticket in self.live.items() if not ticket.received]
        come = [i for i, ticket in self.live.items() if ticket.received]
        if not missing or not come or max(come) < min(missing):
            return []
        ticket = self.live[min(missing)]
        if len(ticket.held_for) != 1 or worker in [*ticket.held_for, *ticket.failures]:
            return []
        late = max(ticket.held_for.values()) > HEAD_PATIENCE_SECONDS and not ticket.is_for_one_alone
        return [min(missing)] if late else []

    @precondition(lambda self: len(self.alive) > 1)
    @rule(pick=PICKS)
    def issue_again(self, pick: int) -> None:
        worker = self.worker(pick)
        expected = self.to_issue_again(worker)
        patience = dict.fromkeys(self.alive, float(HEAD_PATIENCE_SECONDS))
        assert self.leases.issue_head_again(worker, self.now, patience) == expected
        for group_id in expected:
            self.hand(worker, group_id)
            assert sorted(self.leases.holders(group_id)) == sorted(self.live[group_id].held_for)


InOrderLeaseModel.TestCase.settings = LeaseModel.TestCase.settings
test_in_order_lease_model = InOrderLeaseModel.TestCase
