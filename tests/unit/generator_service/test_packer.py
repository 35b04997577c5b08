"""Packing: nothing lost, nothing doubled, order within a rank kept, the neediest first."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from generator_service.packer import Packer
from protocol.tickets import Ticket

PACK_SECONDS = 0.05


def _ticket(group_id: int) -> Ticket:
    return Ticket(group_id=group_id, caption_id=1, caption="a", first_view=0, seeds=(1,), guidance=(1.0,))


actions = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 2), st.integers(1, 7)),
        st.tuples(st.just("cancel"), st.integers(0, 2), st.integers(0, 40)),
        st.tuples(st.just("want"), st.integers(0, 2), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("take"), st.integers(0, 1), st.sampled_from([0.0, 0.01, 0.06])),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(actions, st.integers(1, 5))
def test_every_ticket_goes_exactly_one_way(script: list[tuple[str, int, float]], groups: int) -> None:
    """Against a model of plain lists: taken, cancelled, dropped or still waiting, once each and in order."""
    packer = Packer(groups_per_batch=groups, pack_seconds=PACK_SECONDS)
    waiting: dict[int, list[int]] = defaultdict(list)
    now, next_id, newest = 0.0, 0, 0.0
    for action, rank, number in script:
        if action == "add":
            ids = list(range(next_id, next_id + int(number)))
            next_id += int(number)
            packer.add(rank, [_ticket(i) for i in ids] + [_ticket(ids[0])], now)
            waiting[rank] += ids
            newest = now
        elif action == "cancel":
            packer.cancel(rank, [int(number)])
            waiting[rank] = [i for i in waiting[rank] if i != number]
        elif action == "want":
            packer.want(rank, int(number))
        elif action == "drop":
            assert list(packer.drop_rank(rank)) == waiting.pop(rank, [])
        else:
            now += number
            queued = sum(map(len, waiting.values()))
            full = rank == 1
            batch = packer.take(now, full=full)
            due = queued >= groups or (now - newest >= PACK_SECONDS and not full)
            assert len(batch) == (min(queued, groups) if due else 0)
            for one in batch:
                assert waiting[one.rank].pop(0) == one.ticket.group_id
    for rank in range(3):
        assert list(packer.waiting(rank)) == waiting[rank]


def test_the_rank_that_wants_most_is_served_first() -> None:
    """What room it leaves goes to the next."""
    packer = Packer(groups_per_batch=4, pack_seconds=PACK_SECONDS)
    packer.add(0, map(_ticket, range(3)), 0.0)
    packer.add(1, map(_ticket, range(10, 13)), 0.0)
    packer.want(0, 1)
    packer.want(1, 9)
    assert [(one.rank, one.ticket.group_id) for one in packer.take(0.0)] == [
        (1, 10),
        (1, 11),
        (1, 12),
        (0, 0),
    ]


def test_a_part_filled_batch_waits_for_company() -> None:
    """Counted from the newest ticket."""
    packer = Packer(groups_per_batch=3, pack_seconds=PACK_SECONDS)
    assert packer.due_at(5.0) is None
    packer.add(0, [_ticket(1)], 5.0)
    packer.add(0, [_ticket(2)], 5.04)
    assert packer.due_at(5.05) == 5.04 + PACK_SECONDS
    assert packer.take(5.08) == []
    assert [one.ticket.group_id for one in packer.take(5.1)] == [1, 2]
    packer.add(0, map(_ticket, range(3, 6)), 6.0)
    assert packer.due_at(6.0) == 6.0
