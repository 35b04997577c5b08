"""Where a run's groups come from, by `run.mode`: a feed that workers join, or a pool.

online   ids → feed ⇄ workers                 → source
offline  ids → pool feed ⇄ decoding processes → source
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from protocol.keys import TrainerKeys
from trainer.checkpoint import TrainedState
from trainer.config import TrainerConfig
from trainer.done import Deal, DoneIds
from trainer.feed.feed import Feed, FeedStatus
from trainer.plan import Plan
from trainer.pool.feed import PoolFeed
from trainer.pool.reading import open_sampled_pool
from trainer.pool.sampling import sample
from trainer.sources.pool_order import PoolOrderSource
from trainer.sources.source import Source
from trainer.sources.ticket_order import TicketOrderSource
from trainer.sources.wait import Watch
from trainer.stream import composition, open_feed, open_source

MakeSource = Callable[[threading.Event, Watch], Source]

NO_WORKERS = FeedStatus(
    workers=0, groups_received=0, buffered=0, leased=0, wanted=0, dead_letters=0, refused={}
)
POOL_WINDOW_BATCHES = 3
"""Decoded ahead, the one that is trained on included."""


class Supply:
    """What the loop and its watch are told of where groups come from; a source on it is made once."""

    def __init__(
        self, make_source: MakeSource, content: str, *, feed: Feed | None = None, pool: PoolFeed | None = None
    ) -> None:
        """`content`: content hash of the run's workers so far."""
        self.open_source = make_source
        self._content = content
        self._feed = feed
        self._pool = pool

    def start(self) -> None:
        """Begins to answer workers."""
        if self._feed:
            self._feed.start()

    def stop(self, reason: str) -> None:
        """Tells workers to stop, and ends every thread and process."""
        if self._feed:
            self._feed.stop(reason)
        if self._pool:
            self._pool.close()

    @property
    def endpoint(self) -> str:
        """Where workers join; empty where none can."""
        return self._feed.endpoint if self._feed else ""

    @property
    def content(self) -> str:
        """The content hash that all workers of the run share; empty before the first."""
        return self._feed.content if self._feed else self._content

    def status(self) -> FeedStatus:
        """Counts as they are now."""
        status = self._feed.status() if self._feed else NO_WORKERS
        if self._pool:
            status = replace(
                status,
                buffered=status.buffered + self._pool.buffered,
                dead_letters=status.dead_letters + len(self._pool.dead_letters()),
                refused=status.refused | self._pool.damage,
            )
        return status

    def dead_letters(self) -> dict[int, str]:
        """Groups given up in this session, with their reasons."""
        drawn = self._feed.dead_letters() if self._feed else {}
        return drawn | (self._pool.dead_letters() if self._pool else {})


def open_supply(config: TrainerConfig, plan: Plan, state: TrainedState, keys: TrainerKeys | None) -> Supply:
    """Binds the socket, or opens the pool and starts its processes. Raises UserError."""
    if config.run.mode == "online":
        return _online(config, plan, state, keys)
    return _offline(config, plan, state)


def _online(config: TrainerConfig, plan: Plan, state: TrainedState, keys: TrainerKeys | None) -> Supply:
    feed = open_feed(config, plan, state, keys)

    def make_source(stop: threading.Event, watch: Watch) -> Source:
        return open_source(config, feed, state, stop, watch)

    return Supply(make_source, state.content, feed=feed)


def _offline(config: TrainerConfig, plan: Plan, state: TrainedState) -> Supply:
    pool = open_sampled_pool(config, plan)
    in_order = config.stream.order == "ticket"
    feed = PoolFeed(
        plan,
        pool,
        sample(pool.index, config.run.seed, config.pool.images_per_caption),
        _ids_in_ticket_order(config, state) if in_order else iter(Deal(_done(state))),
        window=POOL_WINDOW_BATCHES * config.train.batch_groups,
        processes=config.pool.processes,
    )

    def make_source(stop: threading.Event, watch: Watch) -> Source:
        if in_order:
            rule = composition(config)
            return TicketOrderSource(
                feed, rule, step=state.step, stop=stop, watch=watch, pooled=lambda group_id: True
            )
        return PoolOrderSource(feed, batch_groups=config.train.batch_groups, stop=stop, watch=watch)

    return Supply(make_source, state.content, pool=feed)


def _ids_in_ticket_order(config: TrainerConfig, state: TrainedState) -> Iterator[int]:
    """What the ring held at the checkpoint, then what is new."""
    ring = [group_id for group_id, _, _ in composition(config).ring(state.step)]
    return itertools.chain(ring, itertools.count(state.done_low))


def _done(state: TrainedState) -> DoneIds:
    return DoneIds(state.done_low, state.done_above)
