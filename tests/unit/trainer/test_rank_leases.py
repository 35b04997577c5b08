"""What the workers of each rank are to draw: together exactly what the steps that are left train on."""

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from trainer.checkpoint import TrainedState
from trainer.config import TrainerConfig
from trainer.done import DoneIds
from trainer.feed.leases import Leases
from trainer.feed.received import Received
from trainer.rank_group import RankGroup
from trainer.stream import leases_of, ticket_share_of, whole_composition

STEPS, BATCH = 40, 16
WORKERS = (b"w",)


def _config(**sections: dict[str, Any]) -> TrainerConfig:
    tables: dict[str, dict[str, Any]] = {"run": {"max_steps": STEPS}, "train": {"batch_groups": BATCH}}
    for name, fields in sections.items():
        tables[name] = tables.get(name, {}) | fields
    return msgspec.convert(tables, TrainerConfig)


def _state(step: int, low: int, above: tuple[int, ...] = ()) -> TrainedState:
    return TrainedState(
        step=step,
        plan="p",
        content="",
        done_low=low,
        done_above=above,
        dead_letters={},
        ring=(),
        groups_trained=0,
        uses=0,
        images_received=0,
        wait_seconds=0.0,
        train_seconds=0.0,
    )


def _drawn(leases: Leases) -> list[int]:
    """Every id, as one worker that draws all it is given would be given them."""
    drawn: list[int] = []
    while ids := leases.issue(WORKERS[0], 4, 0.0, WORKERS):
        assert leases.live <= leases.window
        for group_id in ids:
            leases.receive(group_id)
        leases.train(ids)
        drawn += ids
    return drawn


@pytest.mark.parametrize("world", [1, 2, 4])
def test_in_arrival_order_the_first_undone_ids_are_dealt_round_robin(world: int) -> None:
    """Also where those that are done are no multiple of anything."""
    state = _state(7, 101, (104, 105, 111, 115, 116, 118, 125, 130, 139, 150, 151))
    undone = [i for i in range(101, 10_000) if i not in state.done_above][: (STEPS - 7) * BATCH]
    for rank in range(world):
        drawn = _drawn(leases_of(_config(), state, ((1, "online"),), RankGroup(rank=rank, world=world)))
        assert drawn == undone[rank::world]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("step", [0, 5, 16, 23, 39])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_in_ticket_order_ranks_draw_the_ring_and_the_new_ids_of_their_slots(
    world: int, step: int, share: float
) -> None:
    """But for those that a pool serves; each rank in ascending order, so that none waits for ever."""
    pool = {"run": {"mode": "mixed"}, "pool": {"dir": "p", "share": share}} if share else {}
    config = _config(stream={"order": "ticket", "max_reuse": 2}, **pool)
    modes = ((1, config.run.mode),)
    whole, pooled = whole_composition(config), ticket_share_of(config, modes)
    low = whole.new_ids(step)
    needed = {i for i, _, _ in whole.ring(step)} | set(range(low, whole.new_ids(STEPS)))
    everything: list[int] = []
    for rank in range(world):
        drawn = _drawn(leases_of(config, _state(step, low), modes, RankGroup(rank=rank, world=world)))
        assert drawn == sorted(drawn)
        assert {whole.slot(i) % world for i in drawn} <= {rank}
        everything += drawn
    assert sorted(everything) == sorted(i for i in needed if not pooled.is_pools(i))


class Session:
    """One rank's leases between two starts of a run, and a worker whose groups come in any order."""

    def __init__(self, state: TrainedState, rank: int, world: int, chance: random.Random) -> None:
        ranks = RankGroup(rank=rank, world=world)
        self.leases = leases_of(_config(), state, ((1, "online"),), ranks)
        undone = [i for i in range(2 * STEPS * BATCH) if i not in DoneIds(state.done_low, state.done_above)]
        self.dealt = undone[rank::world]
        self.part = BATCH // world
        self.chance = chance
        self.on_the_way: list[int] = []
        self.here: list[int] = []

    def arrive(self, group_id: int) -> Received:
        """From a worker of this rank or of any other."""
        verdict = self.leases.receive(group_id)
        if verdict is Received.ACCEPTED:
            self.here.append(group_id)
        return verdict

    def step(self, cannot_be_drawn: frozenset[int]) -> list[int]:
        """Trains on the first groups that come."""
        while len(self.here) < self.part:
            issued = self.leases.issue(WORKERS[0], self.chance.randint(1, 6), 0.0, WORKERS)
            for group_id in issued:
                if group_id in cannot_be_drawn:
                    self.leases.fail(WORKERS[0], group_id, "no", WORKERS)
                else:
                    self.on_the_way.append(group_id)
            assert issued or self.on_the_way, "the rank would wait for ever"
            self.chance.shuffle(self.on_the_way)
            for _ in range(self.chance.randint(0, len(self.on_the_way))):
                self.arrive(self.on_the_way.pop())
        trained, self.here = self.here[: self.part], self.here[self.part :]
        self.leases.train(trained)
        return trained


def _run(
    worlds: tuple[int, ...], cannot_be_drawn: frozenset[int], seed: int
) -> tuple[Counter[int], set[int]]:
    """A run that goes on with another number of ranks after every part of its steps: how often each id was
    trained on, and the dead letters."""
    chance, done, trained, dead = random.Random(seed), DoneIds(), Counter[int](), set[int]()
    late: list[int] = []
    ends = [STEPS * (part + 1) // len(worlds) for part in range(len(worlds))]
    for world, begin, end in zip(worlds, [0, *ends], ends, strict=False):
        state = _state(begin, done.low, tuple(done.above))
        sessions = [Session(state, rank, world, chance) for rank in range(world)]
        for group_id in late:  # drawn for the session before, and sent to all
            verdicts = [session.arrive(group_id) for session in sessions]
            assert verdicts.count(Received.ACCEPTED) <= 1
        for _ in range(begin, end):
            for session in sessions:
                batch = session.step(cannot_be_drawn)
                assert set(batch) <= set(session.dealt)
                trained.update(batch)
        for session in sessions:
            dead |= session.leases.dead.keys()
            if end == STEPS:
                assert (session.here, session.on_the_way, session.leases.live) == ([], [], 0)
        late = [i for session in sessions for i in (*session.here, *session.on_the_way)]
        for group_id in (*trained, *dead):
            done.add(group_id)
    return trained, dead


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("worlds", [(1,), (4,), (2, 1, 4), (4, 2, 2, 1)])
def test_each_promised_id_is_one_ranks_over_changes_of_their_number(
    worlds: tuple[int, ...], seed: int
) -> None:
    """Whatever the order of arrival, and whoever gets what was still on the way at a change."""
    trained, dead = _run(worlds, frozenset(), seed)
    assert trained == dict.fromkeys(range(STEPS * BATCH), 1)
    assert dead == set()


@pytest.mark.parametrize("worlds", [(2,), (4,), (2, 4), (4, 1, 2)])
def test_a_dead_letter_is_made_up_for_by_its_own_rank(worlds: tuple[int, ...]) -> None:
    """All of these are dealt to one rank of two and of four at the start: the others' ids stay what they
    were, and the batches whole."""
    cannot_be_drawn = frozenset({1, 5, 9, 13, 41, 301})
    trained, dead = _run(worlds, cannot_be_drawn, seed=0)
    assert dead == cannot_be_drawn
    assert set(trained.values()) == {1}
    assert trained.total() == STEPS * BATCH
    if len(worlds) == 1:
        [world] = worlds
        drawable = [i for i in range(2 * STEPS * BATCH) if i % world != 1 or i not in dead]
        expected = [
            group_id
            for rank in range(world)
            for group_id in [i for i in drawable if i % world == rank][: STEPS * BATCH // world]
        ]
        assert sorted(trained) == sorted(expected)


@pytest.mark.parametrize("world", [2, 4])
def test_a_rank_takes_no_group_of_another(world: int) -> None:
    """Each promised id has one that does, before its ticket is issued and afterwards."""
    state = _state(7, 101, (104, 105, 111, 150, 151))
    for group_id in (101, 102, 103, 106, 107, 112, 130, 149, 152, 160):
        ranks = [RankGroup(rank=rank, world=world) for rank in range(world)]
        verdicts = [leases_of(_config(), state, ((1, "online"),), rank).receive(group_id) for rank in ranks]
        assert verdicts.count(Received.ACCEPTED) == 1, group_id
    rank, other = (leases_of(_config(), state, ((1, "online"),), RankGroup(rank=r, world=2)) for r in (0, 1))
    for group_id in rank.issue(WORKERS[0], 8, 0.0, WORKERS):
        assert other.receive(group_id) is not Received.ACCEPTED
        assert rank.receive(group_id) is Received.ACCEPTED
        assert rank.receive(group_id) is Received.DUPLICATE
