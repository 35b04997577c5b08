"""The ranks of a local run, and what each is told of its place, in the variables that torchrun sets."""

import socket
from collections.abc import Mapping, Sequence

from launcher.supervisor import TRAINER


def trainer_names(ranks: int) -> list[str]:
    """`trainer`, `trainer-1` and so on, in rank order."""
    return [TRAINER, *(f"{TRAINER}-{rank}" for rank in range(1, ranks))]


def rank_environments(trainers: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """By name. A trainer that is alone is told nothing; several meet at a free port of loopback."""
    if len(trainers) == 1:
        return {trainers[0]: {}}
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    world = str(len(trainers))
    return {
        name: {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        for rank, name in enumerate(trainers)
    }
