"""The live stream of a run: the feed that workers join, and the source on it, in the order that was chosen.

arrival: ids that are not done → feed → OnlineSource with an empty ring
ticket:  ring of the checkpoint, then new ids → feed → TicketOrderSource, which waits for that ring first
"""

import secrets
import threading

from protocol.errors import UserError
from protocol.keys import TrainerKeys
from trainer import limits
from trainer.checkpoint import TrainedState
from trainer.composition import Composition, RankComposition
from trainer.config import TrainerConfig
from trainer.done import DoneIds
from trainer.feed.desk import Desk, DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.lockstep import Lockstep
from trainer.plan import Plan
from trainer.rank_group import RankGroup
from trainer.rank_part import part_of, told_endpoint
from trainer.sources.online import OnlineSource
from trainer.sources.ring import Ring
from trainer.sources.share import Share, TicketShare
from trainer.sources.source import Source
from trainer.sources.ticket_order import TicketOrderSource
from trainer.sources.wait import Watch


def open_feed(
    config: TrainerConfig, plan: Plan, state: TrainedState, keys: TrainerKeys | None, ranks: RankGroup
) -> Feed:
    """Binds this rank's socket; nobody is answered until `start`, and with `keys` only admitted workers."""
    leases = leases_of(config, state, ranks)

    def make_desk(bound: str) -> Desk:
        endpoints = ranks.share(told_endpoint(bound, config.stream.advertise, ranks).encode())
        settings = DeskSettings(
            session=secrets.token_hex(8),
            endpoints=tuple(endpoint.decode() for endpoint in endpoints),
            content=state.content,
            follows=not ranks.is_first,
            lease_seconds=config.stream.lease_seconds,
        )
        return Desk(plan, leases, settings)

    return Feed(make_desk, part_of(config, ranks).stream.bind, keys)


def open_source(
    config: TrainerConfig,
    feed: Feed,
    state: TrainedState,
    ranks: RankGroup,
    stop: threading.Event,
    watch: Watch | None,
    lockstep: Lockstep | None,
) -> Source:
    """What the loop of an online run takes this rank's part of its batches from."""
    if config.stream.order == "ticket":
        rule = composition(config, ranks)
        return TicketOrderSource(feed, rule, step=state.step, stop=stop, watch=watch, lockstep=lockstep)
    return open_arrivals(config, feed, ranks, stop, watch, lockstep)


def open_arrivals(
    config: TrainerConfig,
    feed: Feed,
    ranks: RankGroup,
    stop: threading.Event,
    watch: Watch | None,
    lockstep: Lockstep | None,
) -> OnlineSource:
    """The source of arrival order, with an empty ring."""
    own = part_of(config, ranks)
    ring = Ring(
        capacity=limits.ring_groups(own),
        max_reuse=config.stream.max_reuse,
        reuse_gap=config.stream.reuse_gap,
        # Ranks draw other places of their rings; the seed of a run has 63 bits.
        seed=config.run.seed + (ranks.rank << 64),
    )
    return OnlineSource(
        feed,
        ring,
        batch_groups=own.train.batch_groups,
        min_fresh_groups=limits.min_fresh_groups(own),
        stop=stop,
        watch=watch,
        lockstep=lockstep,
    )


def composition(config: TrainerConfig, ranks: RankGroup) -> RankComposition:
    """This rank's part of the batches that `whole_composition` makes."""
    return RankComposition(whole_composition(config), ranks.rank, ranks.world)


def whole_composition(config: TrainerConfig) -> Composition:
    """The rule of ticket order with the run's settings, which `limits.check` has found possible."""
    batch = config.train.batch_groups
    return Composition(
        batch_groups=batch,
        reuse=config.stream.max_reuse,
        ring_batches=max(1, limits.ring_groups(config) // batch),
        gap=config.stream.reuse_gap,
        seed=config.run.seed,
    )


def share_of(config: TrainerConfig) -> Share:
    """What the pool serves of a run in arrival order that has workers as well."""
    share = config.pool.share if config.run.mode == "mixed" else 0.0
    return Share(batch_groups=config.train.batch_groups, share=share, until=config.pool.until)


def ticket_share_of(config: TrainerConfig) -> TicketShare:
    """The same in ticket order, for all ranks."""
    share = config.pool.share if config.run.mode == "mixed" else 0.0
    return TicketShare(whole_composition(config), share=share, until=config.pool.until)


def check_order(config: TrainerConfig, state: TrainedState, where: str) -> None:
    """Raises UserError where ticket order can't go on from what was trained: another order or other settings
    would have trained on other groups."""
    if config.stream.order == "arrival" or state.step == 0:
        return
    rule = whole_composition(config)
    new_ids, ring = rule.new_ids(state.step), rule.ring(state.step)
    if state.order != "ticket" or (state.done_low, state.done_above, state.ring) != (new_ids, (), ring):
        raise UserError(
            "run can't go on in ticket order",
            expected=f"ticket order: {new_ids} groups done after {state.step} steps, {len(ring)} in the ring",
            got=f"{state.order} order, {state.done_low} done, {len(state.ring)} in the ring, or other groups",
            where=where,
            mend="restore order, max_reuse, reuse_gap, ring_groups and batch_groups, or choose another"
            " --run.name",
        )


def leases_of(config: TrainerConfig, state: TrainedState, ranks: RankGroup) -> Leases:
    """The ids that this rank's workers are to draw, from a checkpoint to the last step."""
    own = part_of(config, ranks)
    window = limits.window_groups(own)
    if config.stream.order == "arrival":
        share, steps = share_of(own), config.run.max_steps
        pooled = share.pool_groups_through(steps) - share.pool_groups_through(state.step)
        return Leases(
            DoneIds(state.done_low, state.done_above),
            target=(steps - state.step) * own.train.batch_groups - pooled,
            window=window,
            rank=ranks.rank,
            world=ranks.world,
        )
    whole, shared = whole_composition(config), ticket_share_of(config)
    rule = RankComposition(whole, ranks.rank, ranks.world)
    ring = {group_id for group_id, _, _ in whole.ring(state.step)}
    low, end = min(ring, default=state.done_low), whole.new_ids(config.run.max_steps)
    pooled = shared.pool_ids_below(end, rule.is_mine) - shared.pool_ids_below(state.done_low, rule.is_mine)
    return Leases(
        DoneIds(low, [i for i in range(low, state.done_low) if i not in ring]),
        target=sum(rule.is_mine(i) and not shared.is_pools(i) for i in ring)
        + (end - state.done_low) // ranks.world
        - pooled,
        window=window,
        in_order=True,
        elsewhere=lambda group_id: shared.is_pools(group_id) or not rule.is_mine(group_id),
    )
