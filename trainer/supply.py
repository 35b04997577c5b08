"""Where a run's groups come from, by its mode: a feed that workers join, a pool, or both.

online   ids → feed ⇄ workers                 → source
offline  ids → pool feed ⇄ decoding processes → source
mixed    each id goes to one of the two       → source
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from functools import partial

from trainer.checkpoint import TrainedState
from trainer.config import TrainerConfig
from trainer.feed.feed import FeedStatus
from trainer.feed.status import total
from trainer.lockstep import Lockstep
from trainer.plan import Plan
from trainer.pool.pool import Pool
from trainer.rank_group import RankGroup
from trainer.sources.auto_reuse import AutoReuse
from trainer.sources.share import Modes
from trainer.sources.source import Source
from trainer.sources.ticket_order import TicketOrderSource
from trainer.sources.wait import Watch
from trainer.stream import open_reuse
from trainer.supply_parts import Kept, Parts, open_parts, open_pool_of

OpenParts = Callable[[TrainerConfig, TrainedState, Modes, Kept], Parts]
OpenPool = Callable[[TrainerConfig, TrainedState, Modes, Kept], Pool | None]

NO_WORKERS = FeedStatus(
    workers=0, groups_received=0, buffered=0, leased=0, wanted=0, dead_letters=0, refused={}
)


class Supply:
    """What the loop and its watch are told of where groups come from."""

    def __init__(
        self, parts: Parts, kept: Kept, content: str, reopen: OpenParts, open_pool: OpenPool
    ) -> None:
        """`content`: content hash of the run's workers so far. `reopen`, `open_pool`: for another mode."""
        self._parts = parts
        self._kept = kept
        self._content = content
        self._reopen = reopen
        self._open_pool = open_pool
        self._source: Source | None = None
        self._others: tuple[FeedStatus, ...] = ()
        self._others_dead: dict[int, str] = {}

    def start(self) -> None:
        """Begins to answer workers."""
        if self._parts.feed:
            self._parts.feed.start()

    def open_source(self, stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        """The source of this mode; to be called once after the making and after each change."""
        self._source = self._parts.make_source(stop, watch, lockstep)
        return self._source

    def prepare(self, config: TrainerConfig, state: TrainedState, modes: Modes) -> None:
        """Before `change` with the same: opens what may not be there. Raises UserError."""
        self._kept = dataclasses.replace(self._kept, opened=None)
        opened = self._open_pool(config, state, modes, self._kept_now())
        self._kept = dataclasses.replace(self._kept, opened=opened)

    def _kept_now(self) -> Kept:
        held = self._source.ring_held() if isinstance(self._source, TicketOrderSource) else {}
        return dataclasses.replace(self._kept, feed=self._parts.feed, held=held)

    def change(self, config: TrainerConfig, state: TrainedState, modes: Modes) -> None:
        """Goes on from `state` in the mode of `config`. Workers stay connected, also while the pool has all.
        Raises UserError, and then has changed nothing."""
        before = self._parts
        self._parts = self._reopen(config, state, modes, self._kept_now())
        self._kept = dataclasses.replace(self._kept, opened=None)
        if before.pool:
            before.pool.close()
        if before.feed is None:
            self.start()

    def linger(self, stop: threading.Event) -> None:
        """Returns when workers that waited for the start have come, or at once where none can."""
        if self._parts.feed:
            self._parts.feed.linger(stop)

    def stop(self, reason: str) -> None:
        """Tells workers to stop, unless the reason is empty, and ends every thread and process."""
        if self._parts.feed:
            self._parts.feed.stop(reason)
        if self._parts.pool:
            self._parts.pool.close()
        if self._parts.recorded:
            self._parts.recorded.close()

    def check(self) -> None:
        """Raises FeedFailedError where the feed has died."""
        if self._parts.feed:
            self._parts.feed.take(0)

    @property
    def endpoint(self) -> str:
        """Where workers join; empty where none can."""
        return self._parts.feed.endpoint if self._parts.feed else ""

    @property
    def content(self) -> str:
        """The content hash that all workers of the run share; empty before the first."""
        return self._parts.feed.content if self._parts.feed else self._content

    @property
    def reuse(self) -> float | None:
        """That `stream.reuse = "auto"` asks for; None with another."""
        auto: AutoReuse | None = self._kept.reuse.auto
        return auto.reuse if auto else None

    def status(self) -> FeedStatus:
        """Counts of all ranks, this one's as they are now."""
        return total((self.own_status(), *self._others))

    def hear(self, others: Sequence[FeedStatus], dead_letters: dict[int, str]) -> None:
        """What the other ranks told of their feeds; replaced as a whole, for threads that only read."""
        self._others, self._others_dead = tuple(others), dead_letters

    def settle_content(self, content: str) -> None:
        """The content hash that the first rank's workers share."""
        self._content = content
        if self._parts.feed:
            self._parts.feed.settle_content(content)

    def own_status(self) -> FeedStatus:
        """Counts of this rank as they are now."""
        parts = self._parts
        status = parts.feed.status() if parts.feed else NO_WORKERS
        if parts.pool:
            status = dataclasses.replace(
                status,
                buffered=status.buffered + parts.pool.buffered,
                dead_letters=status.dead_letters + len(parts.pool.dead_letters()),
                refused=status.refused | parts.pool.damage,
            )
        return status

    def dead_letters(self) -> dict[int, str]:
        """Groups given up in this session, with their reasons."""
        parts = self._parts
        drawn = parts.feed.dead_letters() if parts.feed else {}
        return self._others_dead | drawn | (parts.pool.dead_letters() if parts.pool else {})


def open_supply(
    config: TrainerConfig, plan: Plan, state: TrainedState, modes: Modes, ranks: RankGroup
) -> Supply:
    """Binds the socket, or opens the pool and starts its processes, of this rank. Raises UserError."""
    kept, reopen = Kept(reuse=open_reuse(config, ranks, state.reuse)), partial(open_parts, plan, ranks)
    open_pool = partial(open_pool_of, plan)
    return Supply(reopen(config, state, modes, kept), kept, state.content, reopen, open_pool)
