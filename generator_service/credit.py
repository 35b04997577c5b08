"""How many tickets a worker is ready to hold for each rank."""

from collections.abc import Sequence

STATIC_BATCHES_HELD = 2
"""One is drawn while the next one waits: more would only lengthen the way from order to image."""


def credit_shares(groups_per_batch: int, wanted: Sequence[int]) -> list[int]:
    """Splits two static batches over the ranks: evenly, the rest to the first ranks.

    Where there are more ranks than groups, those that want most (`wanted`, one a rank) get one each.
    """
    total = STATIC_BATCHES_HELD * groups_per_batch
    ranks = len(wanted)
    if total >= ranks:
        return [total // ranks + (rank < total % ranks) for rank in range(ranks)]
    neediest = sorted(range(ranks), key=lambda rank: (-wanted[rank], rank))[:total]
    return [int(rank in neediest) for rank in range(ranks)]
