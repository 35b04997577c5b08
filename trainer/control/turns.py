"""How several ranks follow one wish: the first rank decides at the opening of a step, and all do the same.

first rank   order ─→ a meeting of the lockstep ends with SteeredError on every rank
             Turn ──→ all: the rings go to the first rank's state, each says what keeps it from the new mode,
                      and where nothing does all change; a pause is meetings that lead nowhere
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from protocol.errors import StreamrepError, UserError
from trainer.checkpoint import TrainedState
from trainer.composition import Held
from trainer.config import Mode
from trainer.errors import PeerFailedError, SteeredError
from trainer.lockstep import Lockstep
from trainer.rank_group import RankGroup
from trainer.rank_reports import RankReports


class Turn(Struct, frozen=True, kw_only=True):
    """What the first rank has decided."""

    state: TrainedState
    """What all ranks trained so far."""
    mode: Mode
    modes: tuple[tuple[int, Mode], ...]
    """With that one."""
    changes: bool
    """Whether it is another than before."""
    wished: bool
    """By a person, who can be refused; a recorded switch can't."""
    paused: bool


@dataclass(frozen=True)
class Turns:
    """One rank's part. All ranks make the same calls, `tell` standing for `hear` on the first."""

    ranks: RankGroup
    lockstep: Lockstep
    reports: RankReports

    def is_due(self, *, wanted: bool) -> bool:
        """On the first rank, at the opening of a step: whether all ranks have come for a turn. If not, and
        one is wanted, they will at their next meeting."""
        if self.lockstep.take_order():
            return True
        self.lockstep.order = int(wanted)
        return False

    def want(self, *, wanted: bool) -> None:
        """On the first rank, while it waits: whether the next meeting shall end in a turn."""
        self.lockstep.order = int(wanted)

    def tell(self, turn: Turn) -> None:
        """By the first rank."""
        self.ranks.from_first(msgspec.json.encode(turn))

    def hear(self, ring: Sequence[Held]) -> Turn:
        """By the others, each with what it holds for further use."""
        self.lockstep.take_order()  # which brought this rank here
        self.reports.rings(ring)
        return msgspec.json.decode(self.ranks.from_first(b""), type=Turn, strict=False)

    def refusal(self, turn: Turn, check: Callable[[], None]) -> str:
        """Why not all ranks can change, in one line; empty where they can. `check` raises UserError.

        Raises PeerFailedError on all ranks where they have to.
        """
        own = ""
        try:
            check()
        except UserError as error:  # told to all ranks, which then stay as they are
            own = str(error)
        told = [text.decode() for text in self.ranks.share(own.encode())]
        rank, why = next(((rank, text) for rank, text in enumerate(told) if text), (0, ""))
        if why and not turn.wished:
            at = f"in mode {turn.mode} from step {turn.state.step + 1}"
            raise PeerFailedError(f"rank {rank} can't go on {at}: {why}")
        return why and (why if rank == 0 else f"rank {rank}: {why}")

    def rest(self, check: Callable[[], None], *, wanted: bool = False) -> bool:
        """One meeting of a pause, at the pace of the first rank: whether it has an order, which is `wanted`.
        Raises StopRequestedError, PeerFailedError, and what `check` raises."""
        try:
            check()
        except StreamrepError as error:  # not swallowed: the other ranks are told, and it is raised
            self.lockstep.fail(error)
        self.lockstep.order = int(wanted)
        try:
            self.lockstep.meet(None)
        except SteeredError:
            self.lockstep.take_order()
            return True
        return False
