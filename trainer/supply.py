"""Where a run's groups come from, by its mode: a feed that workers join, a pool, or both.

online   ids → feed ⇄ workers                 → source
offline  ids → pool feed ⇄ decoding processes → source
mixed    each id goes to one of the two       → source
"""

import dataclasses
import threading

from trainer.checkpoint import TrainedState
from trainer.config import TrainerConfig
from trainer.feed.feed import FeedStatus
from trainer.plan import Plan
from trainer.sources.share import Modes
from trainer.sources.source import Source
from trainer.sources.ticket_order import TicketOrderSource
from trainer.sources.wait import Watch
from trainer.stream import open_reuse
from trainer.supply_parts import Kept, open_parts

NO_WORKERS = FeedStatus(
    workers=0, groups_received=0, buffered=0, leased=0, wanted=0, dead_letters=0, refused={}
)


class Supply:
    """What the loop and its watch are told of where groups come from."""

    def __init__(self, config: TrainerConfig, plan: Plan, state: TrainedState, modes: Modes) -> None:
        """Binds the socket, or opens the pool and starts its processes. Raises UserError."""
        self._plan = plan
        self._content = state.content
        self._reuse = open_reuse(config)
        self._source: Source | None = None
        self._parts = open_parts(config, plan, state, modes, Kept(reuse=self._reuse))

    def start(self) -> None:
        """Begins to answer workers."""
        if self._parts.feed:
            self._parts.feed.start()

    def open_source(self, stop: threading.Event, watch: Watch) -> Source:
        """The source of this mode; to be called once after the making and after each change."""
        self._source = self._parts.make_source(stop, watch)
        return self._source

    def change(self, config: TrainerConfig, state: TrainedState, modes: Modes) -> None:
        """Goes on from `state` in the mode of `config`. Workers stay connected, also while the pool has all.
        Raises UserError, and then has changed nothing."""
        held = self._source.ring_held() if isinstance(self._source, TicketOrderSource) else {}
        before = self._parts
        kept = Kept(reuse=self._reuse, feed=before.feed, held=held)
        self._parts = open_parts(config, self._plan, state, modes, kept)
        if before.pool:
            before.pool.close()
        if before.feed is None:
            self.start()

    def stop(self, reason: str) -> None:
        """Tells workers to stop, and ends every thread and process."""
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
        return self._reuse.auto.reuse if self._reuse.auto else None

    def status(self) -> FeedStatus:
        """Counts as they are now."""
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
        return drawn | (parts.pool.dead_letters() if parts.pool else {})
