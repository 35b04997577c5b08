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
from trainer.composition import Composition
from trainer.config import TrainerConfig
from trainer.done import DoneIds
from trainer.feed.desk import Desk, DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan
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


def open_reuse(config: TrainerConfig) -> Reuse:
    """An empty ring, and with `stream.reuse = "auto"` the controller of how much it is used."""
    ring = Ring(
        capacity=limits.ring_groups(config),
        max_reuse=config.stream.max_reuse,
        reuse_gap=config.stream.reuse_gap,
        seed=config.run.seed,
    )
    if config.stream.reuse == "eager":
        return Reuse(ring, None)
    target = config.stream.waiting_target
    return Reuse(ring, AutoReuse(reuse_max=limits.reuse_max(config), waiting_target=target))


def open_feed(
    config: TrainerConfig, plan: Plan, leases: Leases, content: str, keys: TrainerKeys | None
) -> Feed:
    """Binds the socket; nobody is answered until `start`, and with `keys` only admitted workers."""

    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(
            session=secrets.token_hex(8),
            endpoints=(config.stream.advertise or bound,),
            content=content,
            lease_seconds=config.stream.lease_seconds,
        )
        return Desk(plan, leases, settings)

    return Feed(make_desk, config.stream.bind, keys)


def open_arrivals(
    config: TrainerConfig, feed: Feed, reuse: Reuse, stop: threading.Event, watch: Watch
) -> OnlineSource:
    """The stream's source of arrival order."""
    return OnlineSource(
        feed,
        reuse.ring,
        batch_groups=config.train.batch_groups,
        min_fresh_groups=limits.min_fresh_groups(config),
        stop=stop,
        watch=watch,
        auto_reuse=reuse.auto,
        backlog=lambda: feed.status().buffered,
    )


def composition(config: TrainerConfig) -> Composition:
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
    """The same in ticket order, where groups stay with the source of the mode that they came new in."""
    pool = config.pool
    return TicketShare(composition(config), share=pool.share, until=pool.until, modes=modes)


def check_order(config: TrainerConfig, state: TrainedState, where: str) -> None:
    """Raises UserError where ticket order can't go on from what was trained: another order or other settings
    would have trained on other groups."""
    if config.stream.order == "arrival" or state.step == 0:
        return
    rule = composition(config)
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


def leases_of(config: TrainerConfig, state: TrainedState, modes: Modes, held: Collection[int] = ()) -> Leases:
    """What workers are to draw from that state on. `held`: groups of the ring that are at hand."""
    window = limits.window_groups(config)
    if config.stream.order == "arrival":
        share, steps = share_of(config), config.run.max_steps
        pooled = share.pool_groups_through(steps) - share.pool_groups_through(state.step)
        return Leases(
            DoneIds(state.done_low, state.done_above),
            target=(steps - state.step) * config.train.batch_groups - pooled,
            window=window,
        )
    rule, shared = composition(config), ticket_share_of(config, modes)
    ring = {group_id for group_id, _, _ in rule.ring(state.step)}.difference(held)
    low, end = min(ring, default=state.done_low), rule.new_ids(config.run.max_steps)
    never = shared.only_pools_from

    def elsewhere(group_id: int) -> bool:
        # Beyond the last id that is drawn the target is reached; a search for one more would not end.
        return group_id < never and shared.is_pools(group_id)

    pooled = shared.pool_ids_below(end) - shared.pool_ids_below(state.done_low)
    return Leases(
        DoneIds(low, [i for i in range(low, state.done_low) if i not in ring]),
        target=sum(not shared.is_pools(i) for i in ring) + end - state.done_low - pooled,
        window=window,
        in_order=True,
        elsewhere=elsewhere,
    )
