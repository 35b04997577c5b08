"""What one rank has of a run's settings, and where it is found."""

import pytest

from trainer.config import PoolConfig, StreamConfig, TrainConfig, TrainerConfig
from trainer.rank_group import RankGroup
from trainer.rank_part import of_rank, part_of, told_endpoint


def test_groups_are_divided_and_the_port_counts_up() -> None:
    """Window and ring are those of the defaults where the run file leaves them open."""
    config = TrainerConfig(
        train=TrainConfig(batch_groups=12),
        stream=StreamConfig(bind="tcp://127.0.0.1:5755", ring_groups=400),
        pool=PoolConfig(until=25),
    )
    part = part_of(config, RankGroup(rank=2, world=4))
    assert part.train.batch_groups == 3
    assert part.stream.window_groups == 4 * 12 // 4
    assert part.stream.ring_groups == 100
    assert part.stream.bind == "tcp://127.0.0.1:5757"
    assert -(-part.pool.until // 3) == -(-25 // 12), "the pool's last step is that of the whole"
    assert part_of(config, RankGroup()) is config


@pytest.mark.parametrize(
    ("endpoint", "rank", "expected"),
    [
        ("tcp://127.0.0.1:5755", 0, "tcp://127.0.0.1:5755"),
        ("tcp://127.0.0.1:5755", 3, "tcp://127.0.0.1:5758"),
        ("tcp://[::1]:5755", 1, "tcp://[::1]:5756"),
        ("tcp://*:*", 1, "tcp://*:*"),
        ("tcp://127.0.0.1:0", 1, "tcp://127.0.0.1:0"),
        ("ipc:///run/feed", 2, "ipc:///run/feed-2"),
        ("", 2, ""),
    ],
)
def test_every_rank_has_an_address_of_its_own(endpoint: str, rank: int, expected: str) -> None:
    """Known ahead, unless the system is to choose the port."""
    assert of_rank(endpoint, rank) == expected


@pytest.mark.parametrize(
    ("bound", "advertise", "address", "expected"),
    [
        ("tcp://127.0.0.1:5756", "", "127.0.0.1", "tcp://127.0.0.1:5756"),
        ("tcp://0.0.0.0:5756", "", "127.0.0.1", "tcp://0.0.0.0:5756"),
        ("tcp://0.0.0.0:5756", "", "10.0.0.7", "tcp://10.0.0.7:5756"),
        ("tcp://[::]:5756", "", "fd00::7", "tcp://[fd00::7]:5756"),
        ("tcp://0.0.0.0:5756", "tcp://trainer:9000", "10.0.0.7", "tcp://trainer:9001"),
        ("ipc:///run/feed-1", "", "10.0.0.7", "ipc:///run/feed-1"),
    ],
)
def test_workers_are_told_an_address_that_they_can_reach(
    bound: str, advertise: str, address: str, expected: str
) -> None:
    """Of the second of two ranks."""
    ranks = RankGroup(rank=1, world=2, address=address)
    assert told_endpoint(bound, advertise, ranks) == expected


def test_alone_a_trainer_tells_what_it_is_bound_to() -> None:
    """As before there were ranks: a worker goes on where it found the first one."""
    assert told_endpoint("tcp://0.0.0.0:5755", "", RankGroup()) == "tcp://0.0.0.0:5755"
