"""Opens what a mode needs: a feed that workers join, a pool, or both, and the source on them.

A switch of mode is a resume without a new process: undone ids are dealt anew, but the feed with its workers
stays, and so does the ring.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from protocol.keys import read_trainer_keys
from trainer.batch import DrawnGroup
from trainer.checkpoint import TrainedState
from trainer.config import TrainerConfig
from trainer.done import Deal, DoneIds
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.lockstep import Lockstep
from trainer.plan import Plan
from trainer.pool.feed import PoolFeed
from trainer.pool.pool import Pool, open_pool
from trainer.pool.reading import open_sampled_pool
from trainer.pool.sampling import replay, sample
from trainer.rank_group import RankGroup
from trainer.rank_part import part_of
from trainer.sources.both_feeds import BothFeeds
from trainer.sources.mixed import MixedSource
from trainer.sources.pool_order import PoolOrderSource
from trainer.sources.recorded import RecordedRun
from trainer.sources.replay import ReplaySource
from trainer.sources.share import Modes
from trainer.sources.source import Source
from trainer.sources.ticket_order import TicketOrderSource
from trainer.sources.wait import GroupFeed, Watch
from trainer.stream import (
    Reuse,
    composition,
    leases_of,
    open_arrivals,
    open_feed,
    share_of,
    ticket_share_of,
    whole_composition,
)

MakeSource = Callable[[threading.Event, Watch | None, Lockstep | None], Source]

POOL_WINDOW_BATCHES = 3
"""Decoded ahead, the one that is trained on included."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What one mode works with."""

    make_source: MakeSource
    feed: Feed | None = None
    pool: PoolFeed | None = None
    recorded: RecordedRun | None = None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What goes on over a switch of mode."""

    reuse: Reuse
    feed: Feed | None = None
    held: Mapping[int, DrawnGroup] = field(default_factory=dict)
    """In ticket order, the groups of the ring."""
    opened: Pool | None = None
    """What `open_pool_of` found for the mode that comes."""


def open_parts(
    plan: Plan, ranks: RankGroup, config: TrainerConfig, state: TrainedState, modes: Modes, kept: Kept
) -> Parts:
    """Opens the pool and its processes first, then binds or redeals the feed. Raises UserError, and then has
    changed nothing."""
    if config.pool.replay and config.run.mode == "offline":
        return _replay(config, plan, state)
    if config.stream.order == "ticket":
        return _in_ticket_order(plan, ranks, config, state, modes, kept)
    return _in_arrival_order(plan, ranks, config, state, modes, kept)


def open_pool_of(
    plan: Plan, config: TrainerConfig, state: TrainedState, modes: Modes, kept: Kept
) -> Pool | None:
    """The pool that a mode samples, where it does. Raises UserError."""
    reads = config.run.mode != "online"
    if config.stream.order == "ticket":
        share = ticket_share_of(config, modes)
        reads = reads or any(map(share.is_pools, _missing(config, state, kept)))
    return (kept.opened or open_sampled_pool(config, plan)) if reads else None


def _missing(config: TrainerConfig, state: TrainedState, kept: Kept) -> list[int]:
    """In ticket order, the groups of the ring that are not at hand."""
    ring = whole_composition(config).ring(state.step)
    return [group_id for group_id, _, _ in ring if group_id not in kept.held]


def _in_arrival_order(
    plan: Plan, ranks: RankGroup, config: TrainerConfig, state: TrainedState, modes: Modes, kept: Kept
) -> Parts:
    mode, own = config.run.mode, part_of(config, ranks)
    share = share_of(own)
    opened = open_pool_of(plan, config, state, modes, kept)
    feed = None
    if kept.feed or mode != "offline":
        feed = _feed(config, plan, state, leases_of(config, state, modes, ranks), kept, ranks)
    pool = None
    if opened and mode == "offline":
        ids = iter(Deal(DoneIds(state.done_low, state.done_above), ranks.rank, ranks.world))
        pool = _sampled(own, plan, opened, ids)
    elif opened and feed:
        claims = iter(feed.claim, -1)  # which no id is: without an end
        left = share.pool_groups_through(config.run.max_steps) - share.pool_groups_through(state.step)
        pool = _sampled(own, plan, opened, claims, limit=left)

    def make_source(stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        pooled = None
        if pool is not None:
            groups = own.train.batch_groups if mode == "offline" else share.pool_groups(1)
            pooled = PoolOrderSource(pool, batch_groups=groups, stop=stop, watch=watch, lockstep=lockstep)
        if feed is None or mode == "offline":
            assert pooled is not None, "offline has a pool"
            return pooled
        stream = open_arrivals(config, feed, kept.reuse, ranks, stop, watch, lockstep)
        return MixedSource(pooled, stream, share) if pooled else stream

    return Parts(make_source=make_source, feed=feed, pool=pool)


def _in_ticket_order(
    plan: Plan, ranks: RankGroup, config: TrainerConfig, state: TrainedState, modes: Modes, kept: Kept
) -> Parts:
    """The ring may hold groups of both sources in any mode, from before a switch. What is opened depends on
    the whole ring, so that all ranks open the same."""
    mode, rule, share = config.run.mode, composition(config, ranks), ticket_share_of(config, modes)
    missing = _missing(config, state, kept)
    drawn = mode != "offline" or not all(map(share.is_pools, missing))
    opened = open_pool_of(plan, config, state, modes, kept)
    feed = None
    if kept.feed or drawn:
        leases = leases_of(config, state, modes, ranks, kept.held)
        feed = _feed(config, plan, state, leases, kept, ranks)
    pool = None
    if opened:
        ids = itertools.chain(filter(share.is_pools, missing), share.pool_ids_from(state.done_low))
        pool = _sampled(part_of(config, ranks), plan, opened, filter(rule.is_mine, ids))

    def make_source(stop: threading.Event, watch: Watch | None, lockstep: Lockstep | None) -> Source:
        groups: GroupFeed
        if feed and pool and drawn:
            groups = BothFeeds(feed, pool, share)
        else:
            only = feed if drawn else pool
            assert only is not None, "each mode has a source"
            groups = only
        return TicketOrderSource(
            groups,
            rule,
            step=state.step,
            stop=stop,
            watch=watch,
            lockstep=lockstep,
            pooled=share.is_pools,
            held=kept.held,
        )

    return Parts(make_source=make_source, feed=feed, pool=pool)


def _replay(config: TrainerConfig, plan: Plan, state: TrainedState) -> Parts:
    recorded = RecordedRun(Path(config.pool.replay), plan, config.run.max_steps)
    pool = open_pool(Path(config.pool.dir), max_damaged=config.pool.max_damaged)
    sampled = sample(pool.index, config.run.seed, config.pool.images_per_caption)
    drawn = replay(pool.index)
    feed = PoolFeed(
        plan,
        pool,
        lambda ticket: (sampled if recorded.is_pools(ticket.group_id) else drawn)(ticket),
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

    return Parts(make_source=make_source, pool=feed, recorded=recorded)


def _feed(
    config: TrainerConfig, plan: Plan, state: TrainedState, leases: Leases, kept: Kept, ranks: RankGroup
) -> Feed:
    if kept.feed is None:
        return open_feed(config, plan, leases, state.content, read_trainer_keys(config.stream.keys), ranks)
    kept.feed.redeal(leases)
    return kept.feed


def _sampled(
    config: TrainerConfig, plan: Plan, pool: Pool, ids: Iterator[int], limit: int | None = None
) -> PoolFeed:
    return PoolFeed(
        plan,
        pool,
        sample(pool.index, config.run.seed, config.pool.images_per_caption),
        ids,
        window=POOL_WINDOW_BATCHES * config.train.batch_groups,
        processes=config.pool.processes,
        limit=limit,
    )
