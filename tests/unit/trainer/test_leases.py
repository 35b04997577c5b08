"""The lease machine, by example; `test_lease_model.py` holds it to a plain model under random events."""

import pytest

from trainer.done import DoneIds
from trainer.feed.leases import Leases
from trainer.feed.received import Received

A, B = b"a", b"b"


def _leases(target: int = 100, window: int = 8, done: DoneIds | None = None) -> Leases:
    return Leases(done or DoneIds(), target=target, window=window)


def test_ids_are_issued_in_ascending_order_within_the_window() -> None:
    """The window bounds waiting, leased and received together; training frees it."""
    leases = _leases(window=3)
    assert leases.issue(A, 10, 0.0, [A]) == [0, 1, 2]
    assert leases.receive(1) is Received.ACCEPTED
    assert leases.issue(A, 10, 0.0, [A]) == []
    leases.train([1])
    assert leases.issue(A, 10, 0.0, [A]) == [3]


def test_no_id_beyond_the_target_is_issued() -> None:
    """A run of `target` trainings with reuse 1 orders exactly `target` groups that can be drawn."""
    leases = _leases(target=2)
    assert leases.issue(A, 10, 0.0, [A]) == [0, 1]
    leases.receive(0)
    leases.train([0])
    assert leases.issue(A, 10, 0.0, [A]) == []


def test_a_dead_worker_s_tickets_go_to_the_front_of_the_queue() -> None:
    """What a dead worker held is issued before any new id."""
    leases = _leases()
    leases.issue(A, 2, 0.0, [A, B])
    leases.issue(B, 1, 0.0, [A, B])
    leases.lose_worker(A)
    assert leases.issue(B, 3, 1.0, [B]) == [0, 1, 3]


def test_a_late_group_is_taken_and_its_second_copy_is_not() -> None:
    """An expired ticket's first arrival wins, whoever sends it."""
    leases = _leases()
    leases.issue(A, 1, 0.0, [A, B])
    assert leases.expire(A, 0.0, 10.0, 11.0) == [0]
    leases.issue(B, 1, 11.0, [A, B])
    assert leases.receive(0) is Received.ACCEPTED
    assert leases.held(B) == 0
    assert leases.receive(0) is Received.DUPLICATE
    leases.train([0])
    assert leases.receive(0) is Received.DUPLICATE


def test_progress_renews_a_lease() -> None:
    """A lease counts from the later of its issue and the worker's last progress."""
    leases = _leases()
    leases.issue(A, 1, 0.0, [A])
    assert leases.expire(A, 5.0, 10.0, 14.9) == []
    assert leases.expire(A, 5.0, 10.0, 15.1) == [0]


def test_two_failures_on_different_workers_make_a_dead_letter() -> None:
    """A failed ticket goes to another worker; its second failure buries it and another id takes its place."""
    leases = _leases(target=1)
    assert leases.issue(A, 1, 0.0, [A, B]) == [0]
    assert not leases.fail(A, 0, "boom", [A, B])
    assert leases.issue(A, 1, 0.0, [A, B]) == []
    assert leases.issue(B, 1, 0.0, [A, B]) == [0]
    assert leases.fail(B, 0, "boom", [A, B])
    assert list(leases.dead) == [0]
    assert "boom" in leases.dead[0]
    assert leases.issue(A, 5, 0.0, [A, B]) == [1]


def test_a_lone_worker_s_second_failure_is_enough() -> None:
    """Where only one worker is there, it is asked twice."""
    leases = _leases()
    leases.issue(A, 1, 0.0, [A])
    assert not leases.fail(A, 0, "boom", [A])
    assert leases.issue(A, 1, 0.0, [A]) == [0]
    assert leases.fail(A, 0, "boom", [A])


def test_a_worker_that_fails_twice_does_not_bury_what_another_could_draw() -> None:
    """It was alone when it was asked again, and is not any more when it fails again."""
    leases = _leases()
    leases.issue(A, 1, 0.0, [A])
    leases.fail(A, 0, "boom", [A])
    assert leases.issue(A, 1, 0.0, [A]) == [0]
    assert not leases.fail(A, 0, "boom", [A, B])
    assert leases.issue(A, 1, 0.0, [A, B]) == [1]
    assert leases.issue(B, 1, 0.0, [A, B]) == [0]
    assert leases.fail(B, 0, "boom", [A, B])


def test_after_three_losses_a_ticket_is_sent_alone_and_two_more_bury_it() -> None:
    """Deaths are not failures, but a ticket that workers die of is isolated and then given up."""
    leases = _leases(window=4)
    for _ in range(3):
        assert 0 in leases.issue(A, 1, 0.0, [A])
        leases.lose_worker(A)
    for _ in range(2):
        assert leases.issue(A, 4, 0.0, [A, B]) == [0]
        assert leases.issue(A, 4, 0.0, [A, B]) == [], "nothing may stand beside a ticket sent alone"
        leases.lose_worker(A)
    assert list(leases.dead) == [0]


def test_one_worker_that_comes_and_vanishes_makes_no_dead_letter_while_another_could_draw() -> None:
    """However often, behind however many sockets; the other then gets the ticket beside new ones."""
    leases = _leases(window=4)
    for number in range(40):
        socket = b"socket %d" % number
        assert leases.issue(socket, 1, 0.0, [socket, B]) == [0]
        if number % 2:
            leases.lose_worker(socket, {socket: "vanisher", B: "good"})
        else:
            assert leases.expire(socket, 0.0, 10.0, 11.0, {socket: "vanisher", B: "good"}) == [0]
    assert leases.dead == {}
    assert leases.issue(B, 2, 0.0, [B]) == [0, 1]


def test_a_ticket_that_kills_every_worker_is_buried_though_each_comes_back_under_its_name() -> None:
    """Two machines whose workers die of it: three deaths, then two alone, one of them on either machine."""
    leases = _leases(window=4)
    deaths = 0
    while not leases.dead:
        socket, name = b"socket %d" % deaths, ("left", "right")[deaths % 2]
        assert leases.issue(socket, 1, 0.0, [socket])[:1] == [0]
        leases.lose_worker(socket, {socket: name, b"other": ("right", "left")[deaths % 2]})
        deaths += 1
    assert deaths == 5


def test_a_lone_ticket_makes_a_busy_worker_drain_first() -> None:
    """With every worker busy, one of them gets nothing new until it can take the ticket alone."""
    leases = _leases(window=8)
    for _ in range(3):
        assert leases.issue(A, 1, 0.0, [A]) == [0]
        extra = leases.issue(A, 1, 9.0, [A])
        assert leases.expire(A, 0.0, 10.0, 10.5) == [0]
        leases.give_back(A, extra)
    assert leases.issue(B, 2, 11.0, [B]) == [0], "a free worker takes it at once, alone"
    leases.give_back(B, [0])
    assert leases.issue(B, 1, 11.0, [B]) == [0], "and again after giving it back"
    leases.give_back(B, [0])


def test_a_busy_worker_is_not_given_more_while_a_lone_ticket_waits() -> None:
    """The least of the workers that may take it drains; the others go on."""
    leases = _leases(window=8)
    for _ in range(2):
        leases.issue(A, 1, 0.0, [A])
        leases.expire(A, 0.0, 10.0, 10.5)
    assert leases.issue(A, 1, 0.0, [A]) == [0]
    assert leases.issue(A, 1, 9.0, [A]) == [1]
    assert leases.issue(B, 1, 9.0, [A, B]) == [2]
    assert leases.expire(A, 0.0, 10.0, 10.5) == [0]
    assert leases.issue(A, 4, 11.0, [A, B]) == [], "A drains"
    assert leases.issue(B, 1, 11.0, [A, B]) == [3], "B goes on"
    assert leases.receive(1) is Received.ACCEPTED
    assert leases.issue(A, 4, 12.0, [A, B]) == [0]


def test_groups_of_an_earlier_session_are_taken_once_and_not_issued_again() -> None:
    """After a resume a group still wanted may arrive before its ticket is issued."""
    leases = _leases(done=DoneIds(2, [3]), window=3)
    assert leases.receive(4) is Received.ACCEPTED
    assert leases.receive(4) is Received.DUPLICATE
    assert leases.receive(3) is Received.DUPLICATE or leases.receive(3) is Received.UNWANTED
    assert leases.issue(A, 9, 0.0, [A]) == [2, 5]
    assert leases.receive(1) is Received.DUPLICATE


def test_training_a_group_that_never_came_is_a_bug() -> None:
    """The machine refuses to retire what it has not received."""
    leases = _leases()
    leases.issue(A, 1, 0.0, [A])
    with pytest.raises(ValueError, match="before it was received"):
        leases.train([0])


def _in_order(window: int = 8) -> Leases:
    return Leases(DoneIds(), target=100, window=window, in_order=True)


def test_a_late_head_that_others_wait_for_is_issued_to_a_second_worker() -> None:
    """Only to one, after its holder's patience, and once a later group has come; the first copy wins."""
    leases = _in_order()
    assert leases.issue(A, 2, 0.0, [A, B]) == [0, 1]
    assert leases.issue(B, 2, 0.0, [A, B]) == [2, 3]
    assert leases.issue_head_again(B, 9.0, {A: 2.0}) == [], "nothing waits for it yet"
    leases.receive(2)
    assert leases.issue_head_again(B, 2.0, {A: 2.0}) == []
    assert leases.issue_head_again(A, 9.0, {A: 2.0}) == [], "not to the one that has it"
    assert leases.issue_head_again(B, 9.0, {}) == [], "nobody knows how long A takes"
    assert leases.issue_head_again(B, 2.1, {A: 2.0}) == [0]
    assert leases.issue_head_again(b"c", 9.0, {A: 2.0, B: 2.0}) == [], "two holders are enough"
    assert leases.holders(0) == [A, B]
    assert leases.receive(0) is Received.ACCEPTED
    assert leases.receive(0) is Received.DUPLICATE
    assert (leases.held(A), leases.held(B)) == (1, 1)
    assert leases.issue_head_again(B, 9.0, {A: 2.0}) == [1], "the next id is the head now"


def test_a_head_held_twice_waits_for_no_third_worker_when_one_dies() -> None:
    """It goes back to the queue only when nobody has it."""
    leases = _in_order(window=3)
    leases.issue(A, 2, 0.0, [A, B])
    leases.issue(B, 1, 0.0, [A, B])
    leases.receive(2)
    assert leases.issue_head_again(B, 9.0, {A: 2.0}) == [0]
    leases.lose_worker(A)
    assert leases.issue(b"c", 9, 9.0, [B, b"c"]) == [1]
    leases.lose_worker(B)
    assert leases.issue(b"c", 9, 9.0, [b"c"]) == [0]


def test_a_head_that_two_held_when_it_became_suspect_is_still_sent_alone_twice() -> None:
    """The second holder had other tickets beside it: its death says no more of this one than those before."""
    leases = _in_order()
    for _ in range(2):
        assert leases.issue(A, 1, 0.0, [A]) == [0]
        leases.lose_worker(A)
    assert leases.issue(A, 1, 0.0, [A, B]) == [0]
    assert leases.issue(B, 2, 0.0, [A, B]) == [1, 2]
    leases.receive(1)
    assert leases.issue_head_again(B, 9.0, {A: 2.0}) == [0]
    leases.lose_worker(A)
    leases.lose_worker(B)
    for _ in range(2):
        assert not leases.dead
        assert leases.issue(b"c", 4, 9.0, [b"c"]) == [0]
        leases.lose_worker(b"c")
    assert "2 with it alone" in leases.dead[0]


def test_in_arrival_order_nothing_is_issued_twice() -> None:
    """No batch waits for a certain group."""
    leases = _leases()
    leases.issue(A, 2, 0.0, [A, B])
    leases.receive(1)
    assert leases.issue_head_again(B, 99.0, {A: 2.0}) == []


def test_in_order_an_early_group_takes_no_room_that_a_lower_one_needs() -> None:
    """A window full of groups that no batch can take would stand still for ever."""
    leases = _in_order(window=3)
    assert leases.receive(3) is Received.UNWANTED
    assert leases.receive(2) is Received.ACCEPTED
    assert leases.receive(1) is Received.ACCEPTED
    assert leases.issue(A, 9, 0.0, [A]) == [0]


def test_a_group_beyond_the_promised_ids_is_unwanted() -> None:
    """Five are promised of 3, 4, 6, 7, 8, 10: the first five; an early one leaves the others their room."""
    leases = Leases(DoneIds(3, [5, 9]), target=5, window=5)
    assert leases.receive(10) is Received.UNWANTED
    assert leases.receive(10**12) is Received.UNWANTED
    assert leases.receive(8) is Received.ACCEPTED
    assert leases.receive(10) is Received.UNWANTED
    assert leases.issue(A, 9, 0.0, [A]) == [3, 4, 6, 7]


def test_ranks_hold_early_groups_to_their_own_ids() -> None:
    """The second of two ranks, four ids promised: 1, 3, 5, 7."""
    leases = Leases(DoneIds(), target=4, window=4, rank=1, world=2)
    assert leases.receive(9) is Received.UNWANTED
    assert leases.receive(6) is Received.UNWANTED
    assert leases.receive(7) is Received.ACCEPTED
    assert leases.issue(A, 9, 0.0, [A]) == [1, 3, 5]
