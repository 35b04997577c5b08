"""Ranks move in lockstep: each step opens with one small all-reduce, so that waiting and stopping are
decisions of all.

    what this rank lacks, its stop, its error ─→ all-reduce ─→ go on together · wait a little · stop · fail

The vector, int64, summed over ranks: ranks that were asked to stop, ranks that have failed, whether the first
rank has learnt the content hash, the first rank's order, and then for each rank 0, or 1 + the number of the
reason why it can't go on.
"""

import threading
from collections.abc import Callable
from typing import NoReturn

import torch

from protocol.errors import StreamrepError
from trainer.errors import PeerFailedError, SteeredError, StopRequestedError
from trainer.rank_group import RankGroup
from trainer.ranks import sum_over_ranks
from trainer.stall import Stall, Want

Waits = tuple[tuple[int, Stall], ...]
"""(rank, reason) of those that can't go on."""

_REASONS = tuple(Stall)
_STOP, _FAILED, _CONTENT, _ORDER, _WAITS = range(5)


class Lockstep:
    """One rank's part in the meetings. Every rank comes to the same ones."""

    def __init__(
        self,
        ranks: RankGroup,
        stop: threading.Event,
        *,
        diagnose: Callable[[Want], Stall],
        content: Callable[[], str],
        settle_content: Callable[[str], None],
    ) -> None:
        """`content`: the hash that this rank's workers share, empty before the first. The first rank's counts
        for all, and `settle_content` is told it."""
        self._ranks = ranks
        self._stop = stop
        self._diagnose = diagnose
        self._content = content
        self._settle_content = settle_content
        self._content_told = False
        self.order = 0
        """Whether the first rank wants something of all before the next step, such as a switch; 0 is no."""
        self._ordered = 0

    def take_order(self) -> int:
        """The first rank's order for which a meeting has ended, once; 0 where there is none."""
        ordered, self._ordered = self._ordered, 0
        return ordered

    def meet(self, want: Want | None) -> Waits:
        """`want`: what this rank lacks. Returns the ranks that can't go on, and why; where there is none, all
        go on.

        Raises on all ranks: StopRequestedError once one was asked to stop, PeerFailedError once one has
        failed, SteeredError once the first rank has an order.
        """
        totals = self._sum(want, failed=False)
        if totals[_FAILED]:
            self._raise_failure("")
        if totals[_CONTENT]:
            self._content_told = True
            self._settle_content(self._ranks.from_first(self._content().encode()).decode())
        if totals[_STOP]:
            raise StopRequestedError("a rank was asked to stop")
        self.order = 0
        if totals[_ORDER]:
            self._ordered = totals[_ORDER]
            raise SteeredError("the first rank was asked for something")
        return tuple((rank, _REASONS[code - 1]) for rank, code in enumerate(totals[_WAITS:]) if code)

    def fail(self, error: StreamrepError) -> NoReturn:
        """In the place of a meeting: tells all ranks why this one can't go on. Raises the error."""
        self._sum(None, failed=True)
        try:
            self._raise_failure(f"{type(error).__name__.removesuffix('Error')}: {error}")
        except PeerFailedError:
            raise error from None

    def _sum(self, want: Want | None, *, failed: bool) -> list[int]:
        ranks = self._ranks
        vector = torch.zeros(_WAITS + ranks.world, dtype=torch.int64)
        vector[_STOP] = int(self._stop.is_set())
        vector[_FAILED] = int(failed)
        if ranks.is_first:
            vector[_CONTENT] = int(not self._content_told and bool(self._content()))
            vector[_ORDER] = self.order
        if want is not None:
            vector[_WAITS + ranks.rank] = 1 + _REASONS.index(self._diagnose(want))
        totals: list[int] = sum_over_ranks(vector).tolist()
        return totals

    def _raise_failure(self, own: str) -> NoReturn:
        reasons = [reason.decode() for reason in self._ranks.share(own.encode())]
        rank, reason = next((rank, reason) for rank, reason in enumerate(reasons) if reason)
        raise PeerFailedError(f"rank {rank} has failed: {reason}")
