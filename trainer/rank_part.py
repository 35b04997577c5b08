"""One rank's part of a run: its share of batch, window and ring, and the address of its own feed."""

import ipaddress
from urllib.parse import urlsplit

import msgspec

from trainer import limits
from trainer.config import TrainerConfig
from trainer.rank_group import RankGroup


def part_of(config: TrainerConfig, ranks: RankGroup) -> TrainerConfig:
    """The run file as one rank goes by it: a `world`-th of all groups, and the address of its own feed.

    `limits.check` has found that batches can be divided.
    """
    if ranks.world == 1:
        return config
    replace = msgspec.structs.replace
    return replace(
        config,
        train=replace(config.train, batch_groups=config.train.batch_groups // ranks.world),
        stream=replace(
            config.stream,
            bind=of_rank(config.stream.bind, ranks.rank),
            window_groups=limits.window_groups(config) // ranks.world,
            ring_groups=limits.ring_groups(config) // ranks.world,
        ),
        # Rounded up, as the last step of the whole is.
        pool=replace(config.pool, until=-(-config.pool.until // ranks.world)),
    )


def of_rank(endpoint: str, rank: int) -> str:
    """A rank's address beside the first one's: its port, or its path, counted up by the rank.

    A port that the system is to choose (`*` or 0) is chosen for each rank.
    """
    start, colon, end = endpoint.rpartition(":")
    if rank == 0 or not endpoint:
        return endpoint
    if not endpoint.startswith("tcp://"):
        return f"{endpoint}-{rank}"
    return f"{start}{colon}{int(end) + rank}" if end.isdigit() and int(end) else endpoint


def told_endpoint(bound: str, advertise: str, ranks: RankGroup) -> str:
    """What workers are told of this rank: `advertise` counted up, or where it is bound.

    Bound to every address of a machine that the other ranks know by an address of its own, it is that one. On
    the only machine of a run it stays 0.0.0.0, which workers read as where they found the first rank.
    """
    if advertise:
        return of_rank(advertise, ranks.rank)
    if ranks.world == 1 or not _is_any(bound) or ipaddress.ip_address(ranks.address).is_loopback:
        return bound
    host = f"[{ranks.address}]" if ":" in ranks.address else ranks.address
    return f"tcp://{host}:{urlsplit(bound).port}"


def _is_any(bound: str) -> bool:
    return bound.startswith("tcp://") and urlsplit(bound).hostname in ("0.0.0.0", "::")
