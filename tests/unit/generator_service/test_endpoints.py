"""Where a worker looks for the other ranks."""

import pytest

from generator_service.endpoints import reachable


@pytest.mark.parametrize(
    ("told", "connect", "expected"),
    [
        ("tcp://10.0.0.7:5756", "tcp://trainer:5755", "tcp://10.0.0.7:5756"),
        ("tcp://0.0.0.0:5756", "tcp://trainer:5755", "tcp://trainer:5756"),
        ("tcp://[::]:5756", "tcp://[fd00::7]:5755", "tcp://[fd00::7]:5756"),
        ("tcp://0.0.0.0:5756", "ipc:///run/feed", "tcp://0.0.0.0:5756"),
        ("ipc:///run/feed-1", "tcp://trainer:5755", "ipc:///run/feed-1"),
        ("no address", "tcp://trainer:5755", "no address"),
    ],
)
def test_a_rank_bound_to_every_address_is_where_the_first_one_was_found(
    told: str, connect: str, expected: str
) -> None:
    """Through a tunnel or a router as well, which the trainer knows nothing of."""
    assert reachable(told, connect) == expected
