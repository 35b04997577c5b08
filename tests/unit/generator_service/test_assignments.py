"""What the two threads of a worker share."""

import threading
import time

from generator_service.assignments import Assignments
from generator_service.channel import FailedDraw
from protocol.tickets import Ticket


def _ticket(group_id: int) -> Ticket:
    return Ticket(
        group_id=group_id, caption_id=1, caption="a cat", first_view=0, seeds=(1, 2), guidance=(1.0, 1.0)
    )


def _tickets(*group_ids: int) -> list[Ticket]:
    return [_ticket(group_id) for group_id in group_ids]


def _failed(group_id: int, rank: int = 0) -> FailedDraw:
    return FailedDraw(rank=rank, group_id=group_id, reason="")


def _assignments(groups_per_batch: int = 2, pack_seconds: float = 60.0) -> Assignments:
    assignments = Assignments(pack_seconds=pack_seconds)
    assignments.equip(groups_per_batch=groups_per_batch, batch_seconds=1.0)
    return assignments


def _taken(assignments: Assignments, timeout_seconds: float = 10.0) -> list[int] | None:
    batch = assignments.take(timeout_seconds)
    return None if batch is None else [one.ticket.group_id for one in batch]


def test_a_ticket_is_in_one_place_from_arrival_to_collection() -> None:
    """Told again in any of them, or while its group is unsent, it is not drawn again; once gone it is."""
    assignments = _assignments(groups_per_batch=1)
    assignments.add(0, _tickets(7), ())
    assignments.add(0, _tickets(7), ())
    assert (assignments.undrawn(0), assignments.drawing) == ((7,), False)
    assert _taken(assignments) == [7]
    assignments.add(0, _tickets(7), ())
    assert (assignments.undrawn(0), assignments.drawing) == ((7,), True)
    assignments.finish([_failed(7)])
    assignments.add(0, _tickets(7), ())
    assert (assignments.undrawn(0), assignments.drawing) == ((7,), True)
    assert assignments.collect() == [_failed(7)]
    assignments.add(0, _tickets(7), (7,))
    assert (assignments.undrawn(0), assignments.drawing, assignments.collect()) == ((), False, [])
    assignments.add(0, _tickets(7), ())
    assert _taken(assignments) == [7]


def test_ranks_number_their_groups_alone() -> None:
    """The same id of another rank is another group."""
    assignments = _assignments(groups_per_batch=1)
    assignments.add(0, _tickets(7), ())
    assert _taken(assignments) == [7]
    assignments.add(1, _tickets(7), ())
    assert (assignments.undrawn(0), assignments.undrawn(1)) == ((7,), (7,))
    assignments.drop_rank(1)
    assert (assignments.undrawn(0), assignments.undrawn(1)) == ((7,), ())


def test_a_full_batch_is_given_at_once_and_a_part_of_one_when_it_is_time() -> None:
    """Nothing is given before, and the wait for it ends."""
    patient = _assignments()
    patient.add(0, _tickets(1), ())
    assert _taken(patient, 0.05) == []
    patient.add(0, _tickets(2, 3), ())
    assert _taken(patient) == [1, 2]
    hasty = _assignments(pack_seconds=0.2)
    hasty.add(0, _tickets(1), ())
    began = time.monotonic()
    assert _taken(hasty) == [1]
    assert 0.1 < time.monotonic() - began < 5
    hasty.add(0, _tickets(2), ())
    assert hasty.take(0.5, full=True) == []
    assert _taken(hasty) == [2]


def test_who_waits_is_woken_by_tickets_and_by_the_end() -> None:
    """Long before its time is over; what is under way at the end may still be finished."""
    assignments = _assignments()
    found: list[list[int] | None] = []

    def wait_twice() -> None:
        found.append(_taken(assignments, 60.0))
        found.append(_taken(assignments, 60.0))

    thread = threading.Thread(target=wait_twice)
    thread.start()
    assignments.add(0, _tickets(1, 2), ())
    while not assignments.drawing:
        time.sleep(0.01)
    assignments.close()
    thread.join(10)
    assert found == [[1, 2], None]
    assignments.finish([_failed(1), _failed(2)])
    assert assignments.collect() == [_failed(1), _failed(2)]
    assert _taken(assignments) is None


def test_cancelled_tickets_are_not_drawn() -> None:
    """Those under way are."""
    assignments = _assignments()
    assignments.add(0, _tickets(1, 2, 3, 4, 5), ())
    assert _taken(assignments) == [1, 2]
    assignments.cancel(0, [1, 3])
    assert (_taken(assignments), assignments.undrawn(0)) == ([4, 5], (1, 2, 4, 5))


def test_two_batches_may_be_under_way_and_come_back_in_order() -> None:
    """Their tickets are drawn once, whichever of them holds it."""
    assignments = _assignments()
    assignments.add(0, _tickets(1, 2, 3, 4), ())
    assert (_taken(assignments), _taken(assignments)) == ([1, 2], [3, 4])
    assignments.add(0, _tickets(1, 4, 5), ())
    assert assignments.undrawn(0) == (5, 1, 2, 3, 4)
    assignments.finish([_failed(1), _failed(2)])
    assert assignments.collect() == [_failed(1), _failed(2)]
    assert (assignments.undrawn(0), assignments.drawing) == ((5, 3, 4), True)
    assignments.finish([_failed(3), _failed(4)])
    assert assignments.collect() == [_failed(3), _failed(4)]
    assert (assignments.undrawn(0), assignments.drawing) == ((5,), False)


def test_who_finishes_is_told_whether_the_other_thread_sleeps() -> None:
    """It may sleep only when nothing waits for it, and is woken once."""
    assignments = _assignments(groups_per_batch=1)
    assignments.add(0, _tickets(1, 2, 3), ())
    for _ in range(3):
        assignments.take(10.0)
    assert assignments.may_sleep()
    assert assignments.finish([_failed(1)])
    assert not assignments.finish([_failed(2)])
    assert not assignments.may_sleep()
    assert not assignments.finish([_failed(3)])
    assert len(assignments.collect()) == 3
    assert assignments.may_sleep()


def test_vitals_are_those_of_the_batch_under_way() -> None:
    """Times by an injected clock."""
    now = [100.0]
    assignments = Assignments(pack_seconds=0.0, clock=lambda: now[0])
    assignments.equip(groups_per_batch=1, batch_seconds=2.0)
    assignments.add(0, _tickets(1), ())
    assert (assignments.vitals.idle_seconds, assignments.left_seconds) == (0.0, 0.0)
    assert _taken(assignments) == [1]
    now[0] = 100.5
    vitals = assignments.vitals
    assert (vitals.idle_seconds, vitals.batch_seconds, assignments.left_seconds) == (0.5, 2.0, 1.5)
    now[0] = 104.0
    assignments.finish([_failed(1)])
    assert (assignments.vitals.batch_seconds, assignments.left_seconds) == (4.0, 0.0)
