"""The live stream of a run: the feed that workers join, and the source on it, in the order that was chosen.

arrival: ids that are not done → feed → OnlineSource with its ring
ticket:  ring of the checkpoint, then new ids → feed → TicketOrderSource, which waits for that ring first
"""

import secrets
import threading
from collections.abc import Collection
from dataclasses import dataclass

from protocol.errors import UserError
from protocol.keys import TrainerKeys
from trainer import limits
from trainer.checkpoint import TrainedState
from trainer.composition import Composition, RankComposition
from trainer.config import TrainerConfig
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.lockstep import Lockstep
from trainer.plan import Plan
from trainer.rank_group import RankGroup
from trainer.rank_part import part_of, told_endpoint
from trainer.sources.auto_reuse import AutoReuse
from trainer.sources.online import OnlineSource
from trainer.sources.ring import Ring
from trainer.sources.share import Modes, Share, TicketShare
from trainer.sources.wait import Watch


@dataclass(frozen=True)
class Reuse:
    """What arrival order keeps of its groups over all switches of mode."""

    ring: Ring
    auto: AutoReuse | None


def open_reuse(config: TrainerConfig, ranks: RankGroup, begins_at: float | None = None) -> Reuse:
    """This rank's empty ring, and with `stream.reuse = "auto"` the controller of how much it is used, which
    goes on from where a checkpoint has it."""
    ring = Ring(
        capacity=limits.ring_groups(part_of(config, ranks)),
        max_reuse=config.stream.max_reuse,
        reuse_gap=config.stream.reuse_gap,
        # Ranks draw other places of their rings; the seed of a run has 63 bits.
        seed=config.run.seed + (ranks.rank << 64),
    )
    if config.stream.reuse == "eager":
        return Reuse(ring, None)
    target = config.stream.waiting_target
    auto = AutoReuse(
        reuse_max=limits.reuse_max(config),
        waiting_target=target,
        begins_at=1.0 if begins_at is None else begins_at,
    )
    return Reuse(ring, auto)


def open_feed(
    config: TrainerConfig,
    plan: Plan,
    leases: Leases,
    content: str,
    keys: TrainerKeys | None,
    ranks: RankGroup,
) -> Feed:
    """Binds this rank's socket; nobody is answered until `start`, and with `keys` only admitted workers. To
    be called by all ranks or by none."""

    def make_desk(bound: str) -> Desk:
        endpoints = ranks.share(told_endpoint(bound, config.stream.advertise, ranks).encode())
        settings = DeskSettings(
            session=secrets.token_hex(8),
            endpoints=tuple(endpoint.decode() for endpoint in endpoints),
            content=content,
            follows=not ranks.is_first,
            lease_seconds=config.stream.lease_seconds,
            exact=config.stream.exact,
        )
        return Desk(plan, leases, settings)

    return Feed(make_desk, part_of(config, ranks).stream.bind, keys)


def open_arrivals(
    config: TrainerConfig,
    feed: Feed,
    reuse: Reuse,
    ranks: RankGroup,
    stop: threading.Event,
    watch: Watch | None,
    lockstep: Lockstep | None,
) -> OnlineSource:
    """The stream's source of arrival order, for this rank's part of the batches."""
    own = part_of(config, ranks)
    return OnlineSource(
        feed,
        reuse.ring,
        batch_groups=own.train.batch_groups,
        min_fresh_groups=limits.min_fresh_groups(own),
        stop=stop,
        watch=watch,
        lockstep=lockstep,
        auto_reuse=reuse.auto,
        backlog=lambda: feed.status().buffered,
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
    """What the pool serves in arrival order: nothing online, all offline."""
    pool, batch = config.pool, config.train.batch_groups
    match config.run.mode:
        case "online":
            return Share(batch_groups=batch, share=0.0, until=0)
        case "offline":
            return Share(batch_groups=batch, share=1.0, until=0)
        case "mixed":
            return Share(batch_groups=batch, share=pool.share, until=pool.until)


def ticket_share_of(config: TrainerConfig, modes: Modes) -> TicketShare:
    """The same in ticket order, for all ranks: groups stay with the source of the mode they came new in."""
    pool = config.pool
    return TicketShare(whole_composition(config), share=pool.share, until=pool.until, modes=modes)


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


def leases_of(
    config: TrainerConfig, state: TrainedState, modes: Modes, ranks: RankGroup, held: Collection[int] = ()
) -> Leases:
    """The ids that this rank's workers are to draw, from that state to the last step. `held`: groups of the
    ring that are at hand."""
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
    whole, shared = whole_composition(config), ticket_share_of(config, modes)
    rule = RankComposition(whole, ranks.rank, ranks.world)
    ring = {group_id for group_id, _, _ in whole.ring(state.step)}.difference(held)
    low, end = min(ring, default=state.done_low), whole.new_ids(config.run.max_steps)
    never = shared.only_pools_from

    def elsewhere(group_id: int) -> bool:
        # Beyond the last id that is drawn the target is reached; a search for one more would not end.
        return (group_id < never and shared.is_pools(group_id)) or not rule.is_mine(group_id)

    pooled = shared.pool_ids_below(end, rule.is_mine) - shared.pool_ids_below(state.done_low, rule.is_mine)
    return Leases(
        DoneIds(low, [i for i in range(low, state.done_low) if i not in ring]),
        target=sum(rule.is_mine(i) and not shared.is_pools(i) for i in ring)
        + (end - state.done_low) // ranks.world
        - pooled,
        window=window,
        in_order=True,
        elsewhere=elsewhere,
    )
