"""The desk answers every worker as the wire page says; times are arguments, nothing waits."""

import numpy as np
import pytest
import zmq

from protocol import PROTOCOL_VERSION
from protocol.errors import MalformedMessageError
from protocol.generation import GenerationSpec
from protocol.messages import (
    Bye,
    Cancel,
    Equipped,
    Failed,
    Hello,
    Ready,
    Reject,
    Stop,
    Tickets,
    TrainerHeartbeat,
    TrainerMessage,
    Welcome,
    WorkerHeartbeat,
)
from protocol.payload import describe_images
from trainer.captions import Captions
from trainer.done import DoneIds
from trainer.errors import TooManyDeadLettersError
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.leases import Leases
from trainer.plan import Plan

SPEC = GenerationSpec(views=2, size=8)
PLAN = Plan(Captions(["a", "b", "c"]), 0, SPEC)
STAMP = {"run": PLAN.digest, "session": "now"}
A, B = b"A", b"B"


def _desk(content: str = "", window: int = 4, target: int = 100, exact: bool = False) -> Desk:
    settings = DeskSettings(
        session="now", endpoints=("tcp://127.0.0.1:1",), content=content, lease_seconds=10.0, exact=exact
    )
    return Desk(PLAN, Leases(DoneIds(), target=target, window=window), settings)


def _hello(worker: str = "w", run: str = "", protocol: int = PROTOCOL_VERSION) -> Hello:
    return Hello(run=run, session="", protocol=protocol, worker=worker, device="cpu", weights="d")


def _equipped(content: str = "c") -> Equipped:
    return Equipped(**STAMP, content=content, engine="e", batch_images=4)


def _join(desk: Desk, identity: bytes, now: float = 0.0) -> None:
    desk.handle(identity, _hello(identity.decode()), None, now)
    desk.handle(identity, _equipped(), None, now)


def _send_group(
    desk: Desk, identity: bytes, group_id: int, now: float, run: str = PLAN.digest
) -> list[object]:
    images = np.full((2, 8, 8, 3), group_id, np.uint8)
    group = describe_images(images, run=run, session="now", group_id=group_id, draw_seconds=0.1)
    return list(desk.handle(identity, group, zmq.Frame(images.tobytes()), now))


def _only(outgoing: list[tuple[bytes, TrainerMessage]]) -> TrainerMessage:
    assert len(outgoing) == 1
    return outgoing[0][1]


def test_hello_is_answered_with_everything_a_worker_must_know() -> None:
    """Run, session, endpoints, spec, intervals."""
    welcome = _only(_desk().handle(A, _hello(), None, 0.0))
    assert isinstance(welcome, Welcome)
    assert (welcome.run, welcome.session, welcome.generation) == (PLAN.digest, "now", SPEC)
    assert welcome.endpoints == ("tcp://127.0.0.1:1",)


@pytest.mark.parametrize(
    ("hello", "word"), [(_hello(protocol=99), "protocol"), (_hello(run="other"), "was drawing for other")]
)
def test_a_worker_of_another_version_or_run_is_turned_away(hello: Hello, word: str) -> None:
    """Told why, not to be tried again, and counted."""
    desk = _desk()
    reject = _only(desk.handle(A, hello, None, 0.0))
    assert isinstance(reject, Reject)
    assert word in reject.reason
    assert not reject.retry
    assert desk.refused.total() == 1


def test_an_unknown_socket_is_told_to_say_hello() -> None:
    """After a silence or a restart of the trainer."""
    reject = _only(_desk().handle(A, Ready(**STAMP, credit=1), None, 0.0))
    assert isinstance(reject, Reject)
    assert reject.retry


def test_credit_is_absolute_and_tickets_wait_for_the_engine() -> None:
    """No ticket before `equipped`; the same credit twice orders nothing more."""
    desk = _desk(window=10)
    desk.handle(A, _hello(), None, 0.0)
    assert desk.handle(A, Ready(**STAMP, credit=3), None, 0.0) == []
    tickets = _only(desk.handle(A, _equipped(), None, 0.0))
    assert isinstance(tickets, Tickets)
    assert tickets.tickets == tuple(PLAN.ticket(i) for i in range(3))
    assert desk.handle(A, Ready(**STAMP, credit=3), None, 0.1) == []
    more = _only(desk.handle(A, Ready(**STAMP, credit=6), None, 0.2))
    assert isinstance(more, Tickets)
    assert [t.group_id for t in more.tickets] == [3, 4, 5]


@pytest.mark.parametrize(("credit", "held_at_grant"), [(1, 0), (2, 1), (3, 1), (8, 4), (9, 4)])
def test_tickets_come_when_half_of_the_credit_is_free(credit: int, held_at_grant: int) -> None:
    """Then as many as fill it, in one message."""
    desk = _desk(window=100)
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=credit), None, 0.0)
    for held in range(credit - 1, held_at_grant, -1):
        _send_group(desk, A, credit - 1 - held, 1.0)
        assert not any(isinstance(message, Tickets) for _, message in desk.tick(1.0))
        assert desk.leases.held(A) == held
    _send_group(desk, A, credit - 1 - held_at_grant, 1.0)
    tickets = [message for _, message in desk.tick(1.5) if isinstance(message, Tickets)]
    assert [len(message.tickets) for message in tickets] == [credit - held_at_grant]
    assert (desk.leases.held(A), desk.starved) == (credit, False)


def test_a_worker_that_the_window_starves_is_known() -> None:
    """A slot that is freed matters to it at once, and to one that has all it can hold not at all."""
    desk = _desk(window=3)
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=3), None, 0.0)
    assert not desk.starved
    for group_id in range(3):
        _send_group(desk, A, group_id, 1.0)
    desk.tick(1.0)
    assert desk.starved
    desk.leases.train([0, 1, 2])
    desk.tick(1.1)
    assert (desk.leases.held(A), desk.starved) == (3, False)


def test_credit_of_an_old_session_counts_for_nothing() -> None:
    """It was given to a trainer that is gone."""
    desk = _desk()
    _join(desk, A)
    old = Ready(run=PLAN.digest, session="before", credit=3)
    assert desk.handle(A, old, None, 0.0) == []


def test_a_group_frees_the_worker_and_not_the_window() -> None:
    """Slots come back when trained, not when received."""
    desk = _desk(window=2)
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=2), None, 0.0)
    assert _send_group(desk, A, 0, 1.0) == []
    arrived = desk.arrivals.popleft()
    assert arrived.ticket == PLAN.ticket(0)
    assert (arrived.worker, arrived.content, arrived.engine) == ("A", "c", "e")
    assert int(arrived.images_NHWC[0, 0, 0, 0]) == 0
    desk.leases.train([0])
    assert [t.group_id for t in _only(desk.grant(2.0)).tickets] == [2]  # type: ignore[union-attr]  # Tickets


def test_a_second_copy_is_counted_and_dropped() -> None:
    """Duplicates never reach the trainer."""
    desk = _desk()
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=1), None, 0.0)
    _send_group(desk, A, 0, 1.0)
    _send_group(desk, A, 0, 1.1)
    assert len(desk.arrivals) == 1
    assert desk.refused["duplicate"] == 1


def test_a_group_of_another_run_is_refused_and_its_sender_leaves() -> None:
    """Never trained on."""
    desk = _desk()
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=1), None, 0.0)
    [(_, reject)] = _send_group(desk, A, 0, 1.0, run="other")
    assert isinstance(reject, Reject)
    assert not desk.arrivals


def test_a_damaged_payload_is_counted_and_the_ticket_goes_out_again() -> None:
    """Checksum errors cost a redraw, not the run."""
    desk = _desk()
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=1), None, 0.0)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    group = describe_images(images, **STAMP, group_id=0, draw_seconds=0.1)
    bad = zmq.Frame(images.tobytes()[:-1] + b"\x01")
    assert desk.handle(A, group, bad, 1.0) == []
    [again] = [message for _, message in desk.tick(1.0) if isinstance(message, Tickets)]
    assert [t.group_id for t in again.tickets] == [0]
    assert desk.refused["checksum"] == 1


def test_an_exact_run_admits_exact_engines_of_one_hash() -> None:
    """The first one's, which a resumed trainer knows from its checkpoint. Workers are told that it is one."""

    def equip(desk: Desk, identity: bytes, engine: str, exact: bool) -> Reject | None:
        welcome = _only(desk.handle(identity, _hello(identity.decode()), None, 0.0))
        assert isinstance(welcome, Welcome)
        assert welcome.exact
        claims = Equipped(**STAMP, content="c", engine=engine, batch_images=4, exact=exact)
        answers = [message for _, message in desk.handle(identity, claims, None, 0.0)]
        return next((message for message in answers if isinstance(message, Reject)), None)

    desk = _desk(exact=True)
    blurred = equip(desk, A, "e", exact=False)
    assert blurred is not None
    assert "stream.exact" in blurred.reason
    assert equip(desk, A, "e", exact=True) is None
    other = equip(desk, B, "e2", exact=True)
    assert other is not None
    assert "another model or engine" in other.reason
    assert desk.peers.equipped == [A]
    resumed = _desk(content=desk.content, exact=True)
    assert equip(resumed, B, "e2", exact=True) is not None
    assert equip(resumed, A, "e", exact=True) is None
    assert (desk.refused["not_exact"], desk.refused["another_content"]) == (1, 1)


def test_another_content_hash_is_rejected_in_one_line() -> None:
    """What, expected, got, how to mend; the first worker's model is the run's."""
    desk = _desk()
    _join(desk, A)
    desk.handle(B, _hello("B"), None, 0.0)
    reject = _only(desk.handle(B, _equipped("other"), None, 0.0))
    assert isinstance(reject, Reject)
    assert "expected content hash c, got other" in reject.reason
    assert "\n" not in reject.reason
    assert desk.peers.equipped == [A]


def test_a_resumed_run_knows_its_content() -> None:
    """The checkpoint's hash binds the first worker too."""
    desk = _desk(content="c0")
    desk.handle(A, _hello(), None, 0.0)
    assert isinstance(_only(desk.handle(A, _equipped("c1"), None, 0.0)), Reject)


def test_silence_is_death_and_any_message_is_life() -> None:
    """After 5 s unheard its tickets go to another worker; a heartbeat keeps it."""
    desk = _desk(window=2)
    _join(desk, A)
    _join(desk, B)
    desk.handle(A, Ready(**STAMP, credit=2), None, 0.0)
    desk.handle(B, WorkerHeartbeat(**STAMP, idle_seconds=0.0, batch_seconds=0.0), None, 4.0)
    desk.handle(B, Ready(**STAMP, credit=2), None, 4.0)
    outgoing = desk.tick(5.1)
    assert desk.peers.equipped == [B]
    assert (desk.peers.joined, len(desk.peers), desk.peers.left_silently) == (2, 1, True)
    assert desk.peers.last_heard == 4.0
    [tickets] = [message for _, message in outgoing if isinstance(message, Tickets)]
    assert [t.group_id for t in tickets.tickets] == [0, 1]


def test_a_stuck_worker_beats_but_loses_its_leases() -> None:
    """Heartbeats without progress do not renew; progress does; slow batches are allowed for."""
    desk = _desk(window=1)
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=1), None, 0.0)
    for second in range(1, 11):
        desk.handle(A, WorkerHeartbeat(**STAMP, idle_seconds=second, batch_seconds=0.1), None, float(second))
        assert not [m for _, m in desk.tick(float(second)) if isinstance(m, Cancel)]
    desk.handle(A, WorkerHeartbeat(**STAMP, idle_seconds=10.5, batch_seconds=0.1), None, 10.5)
    cancelled = [m for _, m in desk.tick(10.6) if isinstance(m, Cancel)]
    assert [m.group_ids for m in cancelled] == [(0,)]

    slow = _desk(window=1)
    _join(slow, A)
    slow.handle(A, Ready(**STAMP, credit=1), None, 0.0)
    slow.handle(A, WorkerHeartbeat(**STAMP, idle_seconds=11.0, batch_seconds=4.0), None, 11.0)
    assert not [m for _, m in slow.tick(15.9) if isinstance(m, Cancel)]


def test_bye_returns_tickets() -> None:
    """They go out again at once and the worker is forgotten."""
    desk = _desk(window=2)
    _join(desk, A)
    _join(desk, B)
    desk.handle(A, Ready(**STAMP, credit=2), None, 0.0)
    desk.handle(B, Ready(**STAMP, credit=2), None, 0.0)
    outgoing = desk.handle(A, Bye(**STAMP, returned=(0, 1)), None, 1.0)
    [(to, tickets)] = outgoing
    assert to == B
    assert isinstance(tickets, Tickets)
    assert desk.peers.equipped == [B]


def test_heartbeats_tell_what_is_wanted_and_buffered() -> None:
    """One a second to every worker."""
    desk = _desk(window=4)
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=1), None, 0.0)
    _send_group(desk, A, 0, 0.5)
    beats = [message for _, message in desk.tick(1.0) if isinstance(message, TrainerHeartbeat)]
    assert [(beat.wanted, beat.buffered) for beat in beats] == [(2, 1)]
    assert not [m for _, m in desk.tick(1.5) if isinstance(m, TrainerHeartbeat)]


def test_too_many_dead_letters_end_the_run() -> None:
    """From 20 on, over 1% of all: the cause is the model or the captions."""
    desk = _desk(window=100)
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=1), None, 0.0)

    def fail_all() -> None:
        for _ in range(200):
            held = next(iter(desk.leases._held[A]))
            desk.handle(A, Failed(**STAMP, group_id=held, reason="no such token"), None, 0.0)

    with pytest.raises(TooManyDeadLettersError, match="no such token"):
        fail_all()
    assert len(desk.leases.dead) == 20


@pytest.mark.parametrize("by", ["grant", "ready"])
def test_what_was_held_is_cancelled_before_the_same_ids_are_given_anew(by: str) -> None:
    """Whatever grants first after the switch: the other way round the worker would drop the new ones."""
    desk = _desk()
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=3), None, 0.0)
    desk.redeal(Leases(DoneIds(), target=9, window=4))
    outgoing = desk.grant(0.1) if by == "grant" else desk.handle(A, Ready(**STAMP, credit=3), None, 0.1)
    [cancel, tickets] = [message for _, message in outgoing]
    assert isinstance(cancel, Cancel)
    assert isinstance(tickets, Tickets)
    assert set(cancel.group_ids) & {ticket.group_id for ticket in tickets.tickets}
    assert not any(isinstance(message, Cancel) for _, message in desk.tick(0.2))


def test_after_a_new_deal_workers_stay_and_drop_what_nobody_wants() -> None:
    """As after a switch of mode: dead letters and counts go on, and so does a group that is wanted still."""
    desk = _desk(window=4)
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=4), None, 0.0)
    _send_group(desk, A, 0, 0.0)
    _send_group(desk, A, 1, 0.0)
    desk.arrivals.popleft()
    desk.leases.train([0])
    desk.leases.dead[9] = "failed"
    desk.redeal(Leases(DoneIds(1), target=3, window=4))
    assert [group.group_id for group in desk.arrivals] == [1]
    assert (desk.leases.dead, desk.leases.trained, desk.leases.target) == ({9: "failed"}, 1, 4)
    outgoing = [message for _, message in desk.tick(0.5)]
    assert [m.group_ids for m in outgoing if isinstance(m, Cancel)] == [(2, 3)]
    assert [t.group_id for m in outgoing if isinstance(m, Tickets) for t in m.tickets] == [2, 3]
    desk.redeal(Leases(DoneIds(1), target=0, window=4))
    assert not [message for _, message in desk.tick(0.6) if isinstance(message, Tickets)]
    assert _send_group(desk, A, 2, 0.7) == []
    assert (len(desk.arrivals), desk.refused["unwanted"]) == (0, 1)


def test_bytes_that_are_no_message_are_counted() -> None:
    """Known workers are told; strangers get no answer."""
    desk = _desk()
    _join(desk, A)
    error = MalformedMessageError("header", "truncated")
    assert isinstance(_only(desk.refuse(A, error, 0.0)), Reject)
    assert desk.refuse(b"stranger", error, 0.0) == []
    assert desk.refused["header"] == 2


def test_everybody_is_told_when_the_run_ends() -> None:
    """`stop` with its reason."""
    desk = _desk()
    _join(desk, A)
    [(to, stop)] = desk.farewell("finished")
    assert to == A
    assert stop == Stop(**STAMP, reason="finished")


def test_a_worker_that_is_shut_out_loses_its_tickets_and_is_told_once() -> None:
    """The next worker gets them; what the first says later is counted and not answered."""
    desk = _desk(window=2)
    desk.handle(A, _hello("a"), None, 0.0, "key of a")
    desk.handle(A, _equipped(), None, 0.0, "key of a")
    desk.handle(A, Ready(**STAMP, credit=2), None, 0.0, "key of a")
    assert [peer.key for peer in desk.peers] == ["key of a"]
    [(identity, refusal)] = desk.shut_out(A)
    assert identity == A
    assert isinstance(refusal, Reject)
    assert not refusal.retry
    assert desk.shut_out(A) == []
    assert desk.refused["not_admitted"] == 2
    _join(desk, B)
    [(_, tickets)] = desk.handle(B, Ready(**STAMP, credit=2), None, 0.0)
    assert isinstance(tickets, Tickets)
    assert [ticket.group_id for ticket in tickets.tickets] == [0, 1]


def test_another_key_behind_a_known_identity_is_a_stranger() -> None:
    """It must say hello itself before it may act."""
    desk = _desk()
    desk.handle(A, _hello("a"), None, 0.0, "key of a")
    [(_, refusal)] = desk.handle(A, _equipped(), None, 0.0, "key of b")
    assert isinstance(refusal, Reject)
    assert refusal.retry
    assert desk.peers.equipped == []


def test_in_ticket_order_a_late_head_is_drawn_twice_and_the_second_copy_is_counted() -> None:
    """After twice the holder's p95 batch time, if a later group waits; the loser's ticket is cancelled."""
    settings = DeskSettings(session="now", endpoints=("tcp://x",), content="", lease_seconds=60.0)
    desk = Desk(PLAN, Leases(DoneIds(), target=100, window=4, in_order=True), settings)
    for worker in (A, B):
        _join(desk, worker)
        desk.handle(worker, WorkerHeartbeat(**STAMP, idle_seconds=0.0, batch_seconds=1.0), None, 0.0)
        desk.handle(worker, Ready(**STAMP, credit=2), None, 0.0)
    _send_group(desk, B, 2, 1.0)
    assert [message for _, message in desk.tick(2.0) if isinstance(message, Tickets)] == []
    [(worker, tickets)] = [out for out in desk.tick(2.1) if isinstance(out[1], Tickets)]
    assert isinstance(tickets, Tickets)
    assert (worker, [ticket.group_id for ticket in tickets.tickets]) == (B, [0])
    assert desk.issued_again == 1
    assert (A, Cancel(**STAMP, group_ids=(0,))) in _send_group(desk, B, 0, 2.5)
    _send_group(desk, A, 0, 3.0)
    assert desk.refused["duplicate"] == 1
    assert [group.group_id for group in desk.arrivals] == [2, 0]


def test_groups_with_a_cut_caption_are_counted_once_taken() -> None:
    """A duplicate counts nothing."""
    desk = _desk()
    _join(desk, A)
    desk.handle(A, Ready(**STAMP, credit=4), None, 0.0)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for group_id, cut in ((0, True), (0, True), (1, False), (2, True)):
        group = describe_images(images, **STAMP, group_id=group_id, draw_seconds=0.1, caption_cut=cut)
        desk.handle(A, group, zmq.Frame(images.tobytes()), 1.0)
    assert (desk.groups_received, desk.captions_cut) == (3, 2)


def _following() -> Desk:
    settings = DeskSettings(
        session="now", endpoints=("tcp://x",), content="", follows=True, lease_seconds=10.0
    )
    return Desk(PLAN, Leases(DoneIds(), target=100, window=4), settings)


def test_a_rank_that_follows_waits_for_the_first_ones_content_hash() -> None:
    """Until then no engine gets a ticket; then the run's does, and another model's is refused."""
    desk = _following()
    for worker, content in ((A, "c"), (B, "other")):
        desk.handle(worker, _hello(worker.decode()), None, 0.0)
        assert desk.handle(worker, _equipped(content), None, 0.0) == []
        assert desk.handle(worker, Ready(**STAMP, credit=2), None, 0.0) == []
    assert [out for out in desk.tick(0.1) if not isinstance(out[1], TrainerHeartbeat)] == []
    assert desk.peers.equipped == []
    desk.content = "c"
    told = {worker: message for worker, message in desk.tick(0.2)}
    assert isinstance(told[A], Tickets)
    assert isinstance(told[B], Reject)
    assert "expected content hash c, got other" in told[B].reason
    assert desk.peers.equipped == [A]


def test_a_rank_that_follows_accepts_at_once_when_it_knows() -> None:
    """As after a resume."""
    desk = _following()
    desk.content = "c"
    _join(desk, A)
    assert desk.peers.equipped == [A]
