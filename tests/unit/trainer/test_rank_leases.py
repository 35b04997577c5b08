"""What the workers of each rank are to draw: together exactly what the steps that are left train on."""

from typing import Any

import msgspec
import pytest

from trainer.checkpoint import TrainedState
from trainer.config import TrainerConfig
from trainer.feed.leases import Leases
from trainer.rank_group import RankGroup
from trainer.stream import leases_of, ticket_share_of, whole_composition

STEPS = 40
WORKERS = (b"w",)


def _config(**sections: dict[str, Any]) -> TrainerConfig:
    tables: dict[str, dict[str, Any]] = {"run": {"max_steps": STEPS}, "train": {"batch_groups": 16}}
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
    undone = [i for i in range(101, 10_000) if i not in state.done_above][: (STEPS - 7) * 16]
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
