"""How a trainer finds its place among the ranks, and what it is told where there is none."""

import socket
import threading
from collections.abc import Mapping

import pytest

from protocol.errors import UserError
from trainer.errors import StopRequestedError
from trainer.process_group import join_ranks

RANK_1 = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_without_other_ranks_a_trainer_is_alone(environment: Mapping[str, str]) -> None:
    """Nothing listens, and nothing has to be set."""
    with join_ranks(environment, threading.Event()) as ranks:
        assert (ranks.rank, ranks.world, ranks.is_first) == (0, 1, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RANK": ""}, "expected RANK, a number, got ''"),
        ({"RANK": "2"}, "expected RANK below 2"),
        ({"WORLD_SIZE": "two"}, "expected WORLD_SIZE, a number, got 'two'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR=''"),
        ({"MASTER_PORT": "-1"}, "expected MASTER_PORT, a number, got '-1'"),
        ({"MASTER_ADDR": "no.such.host.invalid"}, "MASTER_ADDR=no.such.host.invalid"),
    ],
)
def test_an_incomplete_environment_is_refused_in_one_line(changes: dict[str, str], words: str) -> None:
    """As where torchrun is imitated by hand."""
    with pytest.raises(UserError) as caught, join_ranks(RANK_1 | changes, threading.Event()):
        raise AssertionError("it has no place")
    assert words in str(caught.value)


def test_a_taken_port_is_told_by_the_first_rank() -> None:
    """With the variable that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        changes = {"RANK": "0", "MASTER_PORT": str(taken.getsockname()[1])}
        with pytest.raises(UserError) as caught, join_ranks(RANK_1 | changes, threading.Event()):
            raise AssertionError("it can't listen")
    assert "choose another MASTER_PORT" in str(caught.value)


def test_who_looks_for_the_first_rank_can_be_stopped() -> None:
    """Ctrl-C before the first rank is up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = threading.Event()
    stop.set()
    changes = {"MASTER_PORT": str(port)}
    with pytest.raises(StopRequestedError), join_ranks(RANK_1 | changes, stop):
        raise AssertionError("nobody is there")
