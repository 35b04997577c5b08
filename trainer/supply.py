"""Where a run's groups come from, by `run.mode`: a feed that workers join, a pool, or both.

online   ids → feed ⇄ workers                 → source
offline  ids → pool feed ⇄ decoding processes → source
mixed    each id goes to one of the two       → source
"""

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from protocol.keys import TrainerKeys
from trainer.checkpoint import TrainedState
from trainer.composition import RankComposition
from trainer.config import TrainerConfig
from trainer.done import Deal, DoneIds
from trainer.feed.feed import Feed, FeedStatus
from trainer.feed.status import total
from trainer.lockstep import Lockstep
from trainer.plan import Plan
from trainer.pool.feed import PoolFeed
from trainer.pool.pool import open_pool
from trainer.pool.reading import open_sampled_pool
from trainer.pool.sampling import replay, sample
from trainer.rank_group import RankGroup
from trainer.rank_part import part_of
from trainer.sources.both_feeds import BothFeeds
from trainer.sources.mixed import MixedSource
from trainer.sources.pool_order import PoolOrderSource
from trainer.sources.recorded import RecordedRun
from trainer.sources.replay import ReplaySource
from trainer.sources.source import Source
from trainer.sources.ticket_order import TicketOrderSource
from trainer.sources.wait import Watch
from trainer.stream import composition, open_arrivals, open_feed, open_source, share_of, ticket_share_of

MakeSource = Callable[[threading.Event, Watch | None, Lockstep | None], Source]

NO_WORKERS = FeedStatus(
    workers=0, groups_received=0, buffered=0, leased=0, wanted=0, dead_letters=0, refused={}
)
POOL_WINDOW_BATCHES = 3
"""Decoded ahead, the one that is trained on included."""


class Supply:
    """What the loop and its watch are told of where groups come from; a source on it is made once."""

    def __init__(
        self,
        make_source: MakeSource,
        content: str,
        *,
        feed: Feed | None = None,
        pool: PoolFeed | None = None,
        recorded: RecordedRun | None = None,
    ) -> None:
        """`content`: content hash of the run's workers so far."""
        self.open_source = make_source
        self._content = content
        self._feed = feed
        self._pool = pool
        self._recorded = recorded
        self._others: tuple[FeedStatus, ...] = ()
        self._others_dead: dict[int, str] = {}

    def start(self) -> None:
        """Begins to answer workers."""
        if self._feed:
            self._feed.start()

    def linger(self, stop: threading.Event) -> None:
        """Returns when workers that waited for the start have come, or at once where none can."""
        if self._feed:
            self._feed.linger(stop)

    def stop(self, reason: str) -> None:
        """Tells workers to stop, unless the reason is empty, and ends every thread and process."""
        if self._feed:
            self._feed.stop(reason)
        if self._pool:
            self._pool.close()
        if self._recorded:
            self._recorded.close()

    @property
    def endpoint(self) -> str:
        """Where workers join; empty where none can."""
        return self._feed.endpoint if self._feed else ""

    @property
    def content(self) -> str:
        """The content hash that all workers of the run share; empty before the first."""
        return self._feed.content if self._feed else self._content

    def status(self) -> FeedStatus:
        """Counts of all ranks, this one's as they are now."""
        return total((self.own_status(), *self._others))

    def hear(self, others: Sequence[FeedStatus], dead_letters: dict[int, str]) -> None:
        """What the other ranks told of their feeds; replaced as a whole, for threads that only read."""
        self._others, self._others_dead = tuple(others), dead_letters

    def settle_content(self, content: str) -> None:
        """The content hash that the first rank's workers share."""
        self._content = content
        if self._feed:
            self._feed.settle_content(content)

    def own_status(self) -> FeedStatus:
        """Counts of this rank as they are now."""
        status = self._feed.status() if self._feed else NO_WORKERS
        if self._pool:
            status = dataclasses.replace(
                status,
                buffered=status.buffered + self._pool.buffered,
                dead_letters=status.dead_letters + len(self._pool.dead_letters()),
                refused=status.refused | self._pool.damage,
            )
        return status

    def dead_letters(self) -> dict[int, str]:
        """Groups given up in this session, with their reasons."""
        drawn = self._feed.dead_letters() if self._feed else {}
        return self._others_dead | drawn | (self._pool.dead_letters() if self._pool else {})


def open_supply(
    config: TrainerConfig, plan: Plan, state: TrainedState, keys: TrainerKeys | None, ranks: RankGroup
) -> Supply:
    """Binds the socket, or opens the pool and starts its processes, of this rank. Raises UserError."""
    match config.run.mode:
        case "online":
            return _online(config, plan, state, keys, ranks)
        case "mixed":
            return _mixed(config, plan, state, keys, ranks)
        case "offline":
            return (
                _replay(config, plan, state) if config.pool.replay else _offline(config, plan, state, ranks)
            )


def _online(
    config: TrainerConfig, plan: Plan, state: TrainedState, keys: TrainerKeys | None, ranks: RankGroup
) -> Supply:
    feed = open_feed(config, plan, state, keys, ranks)

    def make_source(stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        return open_source(config, feed, state, ranks, stop, watch, lockstep)

    return Supply(make_source, state.content, feed=feed)


def _offline(config: TrainerConfig, plan: Plan, state: TrainedState, ranks: RankGroup) -> Supply:
    in_order = config.stream.order == "ticket"
    own = part_of(config, ranks)
    if in_order:
        rule = composition(config, ranks)
        ids = itertools.chain(_ring(rule, state), filter(rule.is_mine, itertools.count(state.done_low)))
        feed = _sampled_feed(own, plan, ids)
    else:
        done = DoneIds(state.done_low, state.done_above)
        feed = _sampled_feed(own, plan, iter(Deal(done, ranks.rank, ranks.world)))

    def make_source(stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        if not in_order:
            batch_groups = own.train.batch_groups
            return PoolOrderSource(feed, batch_groups=batch_groups, stop=stop, watch=watch, lockstep=lockstep)
        return TicketOrderSource(
            feed,
            rule,
            step=state.step,
            stop=stop,
            watch=watch,
            lockstep=lockstep,
            pooled=lambda group_id: True,
        )

    return Supply(make_source, state.content, pool=feed)


def _mixed(
    config: TrainerConfig, plan: Plan, state: TrainedState, keys: TrainerKeys | None, ranks: RankGroup
) -> Supply:
    feed = open_feed(config, plan, state, keys, ranks)
    own = part_of(config, ranks)
    try:
        if config.stream.order == "ticket":
            return _mixed_in_ticket_order(config, plan, state, feed, ranks)
        share = share_of(own)
        left = share.pool_groups_through(config.run.max_steps) - share.pool_groups_through(state.step)
        claims = iter(feed.claim, -1)  # which no id is: without an end
        pool = _sampled_feed(own, plan, claims, limit=left)
    except BaseException:
        feed.stop("the pool can't be read")
        raise

    def make_source(stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        batch_groups = share.pool_groups(1)
        pooled = PoolOrderSource(pool, batch_groups=batch_groups, stop=stop, watch=watch, lockstep=lockstep)
        return MixedSource(pooled, open_arrivals(config, feed, ranks, stop, watch, lockstep), share)

    return Supply(make_source, state.content, feed=feed, pool=pool)


def _mixed_in_ticket_order(
    config: TrainerConfig, plan: Plan, state: TrainedState, feed: Feed, ranks: RankGroup
) -> Supply:
    share, rule = ticket_share_of(config), composition(config, ranks)
    ring = filter(share.is_pools, _ring(rule, state))
    new_ids = filter(rule.is_mine, share.pool_ids_from(state.done_low))
    pool = _sampled_feed(part_of(config, ranks), plan, itertools.chain(ring, new_ids))

    def make_source(stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        return TicketOrderSource(
            BothFeeds(feed, pool, share),
            rule,
            step=state.step,
            stop=stop,
            watch=watch,
            lockstep=lockstep,
            pooled=share.is_pools,
        )

    return Supply(make_source, state.content, feed=feed, pool=pool)


def _replay(config: TrainerConfig, plan: Plan, state: TrainedState) -> Supply:
    recorded = RecordedRun(Path(config.pool.replay), plan, config.run.max_steps)
    pool = open_pool(Path(config.pool.dir), max_damaged=config.pool.max_damaged)
    feed = PoolFeed(
        plan,
        pool,
        replay(pool.index),
        recorded.needed_after(state.step),
        window=POOL_WINDOW_BATCHES * config.train.batch_groups,
        processes=config.pool.processes,
        expected=recorded.digest,
    )

    def make_source(stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        return ReplaySource(
            feed,
            recorded,
            step=state.step,
            batch_groups=config.train.batch_groups,
            stop=stop,
            watch=watch,
        )

    return Supply(make_source, state.content, pool=feed, recorded=recorded)


def _sampled_feed(
    config: TrainerConfig, plan: Plan, ids: Iterator[int], limit: int | None = None
) -> PoolFeed:
    pool = open_sampled_pool(config, plan)
    return PoolFeed(
        plan,
        pool,
        sample(pool.index, config.run.seed, config.pool.images_per_caption),
        ids,
        window=POOL_WINDOW_BATCHES * config.train.batch_groups,
        processes=config.pool.processes,
        limit=limit,
    )


def _ring(rule: RankComposition, state: TrainedState) -> list[int]:
    """What this rank's ring held at the checkpoint, in ticket order: to be read or drawn again first."""
    return [group_id for group_id, _, _ in rule.ring(state.step)]
