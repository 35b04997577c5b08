"""Which images of a caption a visit trains on: m of the first l, drawn by the ticket alone."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import xxhash

from protocol.tickets import Ticket
from trainer.pool.index import PoolIndex


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of a pool's index for one group."""

    rows: tuple[int, ...]
    """In the order in which they are wanted; a row beyond those needed stands in for one that is damaged."""
    exact: bool = False
    """These and no others: a damaged one makes the group a dead letter."""


Select = Callable[[Ticket], Selection]


def draw_order(run_seed: int, group_id: int, count: int) -> list[int]:
    """range(count) in an order that the two numbers decide (Fisher and Yates), on every machine alike."""
    order = list(range(count))
    for place in range(count - 1):
        key = struct.pack("<8sQQQ", b"of-pool\0", run_seed & (2**64 - 1), group_id, place)
        # The remainder of 64 bits is even to 1 in 2^64 / count.
        other = place + xxhash.xxh3_64_intdigest(key) % (count - place)
        order[place], order[other] = order[other], order[place]
    return order


def sample(index: PoolIndex, run_seed: int, images_per_caption: int) -> Select:
    """m of l without repetition; where a caption has fewer than m images, each as often as any other, within
    one. Every image of l is listed, so that one that can't be read is replaced."""

    def select(ticket: Ticket) -> Selection:
        rows = index.rows(ticket.caption_id, 0, images_per_caption)
        return Selection(tuple(rows[i] for i in draw_order(run_seed, ticket.group_id, len(rows))))

    return select


def replay(index: PoolIndex) -> Select:
    """The very views that the ticket names: what a run recorded."""

    def select(ticket: Ticket) -> Selection:
        rows = index.rows(ticket.caption_id, ticket.first_view, ticket.first_view + ticket.views)
        return Selection(tuple(rows) if len(rows) == ticket.views else (), exact=True)

    return select
