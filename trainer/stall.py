"""Why no batch can be formed: which side is blocked, and on what. Pure: facts in, one named reason out."""

from dataclasses import dataclass
from enum import StrEnum

from trainer.feed.feed import FeedStatus

SILENT_AFTER_SECONDS = 3.0
"""Workers beat each second; after three missed beats their silence is the news, whatever they hold."""


class Stall(StrEnum):
    """Reasons, as metrics.jsonl names them."""

    NO_WORKER_YET = "no_worker_yet"
    NO_WORKER_NOW = "no_worker_now"
    WORKERS_SILENT = "workers_silent"
    BUILDING_ENGINES = "building_engines"
    NO_CREDIT = "no_credit"
    WINDOW_FULL = "window_full"
    MIN_FRESH = "min_fresh"
    REUSE_LIMIT = "reuse_limit"
    DRAWING = "drawing"
    DECODING = "decoding"
    CHECKPOINT = "checkpoint"
    PAUSED = "paused"
    OTHER_RANKS = "other_ranks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """What the source has and lacks while it can't form its next batch. Counts are groups."""

    step: int
    """The step that waits."""
    needed: int
    """That this batch takes from the feed at most."""
    fresh: int
    """Of these, how many have come."""
    min_fresh: int = 0
    """Without as many never-trained ones a batch is not formed."""
    reusable: int = 0
    """Trained ones that this batch may use again."""
    barred: int = 0
    """Trained ones that it may not, being used up or used a moment ago."""
    from_pool: bool = False
    """Whether what is missing is read from a pool."""
    others: tuple[tuple[int, "Stall"], ...] = ()
    """Of a rank that lacks nothing: the ranks that it waits for, and why they can't go on."""


def diagnose(want: Want, status: FeedStatus) -> Stall:
    """The reason nearest to its cure: without workers nothing else matters, then what keeps them idle, then
    the limits that made the trainer depend on them, and last the plain wait for a drawing."""
    if want.others:
        return Stall.OTHER_RANKS
    if want.from_pool:
        return Stall.DECODING
    if not status.connected:
        if not status.joined:
            return Stall.NO_WORKER_YET
        return Stall.WORKERS_SILENT if status.left_silently else Stall.NO_WORKER_NOW
    if status.heard_seconds_ago is not None and status.heard_seconds_ago > SILENT_AFTER_SECONDS:
        return Stall.WORKERS_SILENT
    if not status.workers:
        return Stall.BUILDING_ENGINES
    if not status.leased:
        return Stall.NO_CREDIT if status.wanted else Stall.WINDOW_FULL
    if want.fresh < want.min_fresh and want.fresh + want.reusable >= want.needed:
        return Stall.MIN_FRESH
    if want.barred and want.fresh >= want.min_fresh:
        return Stall.REUSE_LIMIT
    return Stall.DRAWING


def explain(stall: Stall, want: Want, status: FeedStatus, endpoint: str) -> str:
    """One sentence for the person watching: who is blocked, on what, and what helps."""
    drawing = f"{status.leased} tickets are being drawn, the oldest for {status.oldest_lease_seconds:.0f} s"
    match stall:
        case Stall.NO_WORKER_YET:
            failed = {reason: n for reason, n in status.refused.items() if reason.startswith("handshake_")}
            told = f" (refused: {failed})" if failed else ""
            return f"no generator has joined at {endpoint}{told}; start one with `streamrep generate`"
        case Stall.NO_WORKER_NOW:
            return f"every generator has left; start one with `streamrep generate`, it joins at {endpoint}"
        case Stall.WORKERS_SILENT:
            heard = 0.0 if status.heard_seconds_ago is None else status.heard_seconds_ago
            return f"no generator was heard for {heard:.0f} s; they have died, hang, or are cut off"
        case Stall.BUILDING_ENGINES:
            return f"{status.connected} generators are connected and still build their engines"
        case Stall.NO_CREDIT:
            return f"{status.workers} generators are ready but ask for no tickets"
        case Stall.WINDOW_FULL:
            return "the window is full of groups that this batch can't take; raise stream.window_groups"
        case Stall.MIN_FRESH:
            fresh = f"stream.min_fresh asks for {want.min_fresh} fresh groups and {want.fresh} have come"
            return f"{fresh}, though used ones could fill the batch; {drawing}"
        case Stall.REUSE_LIMIT:
            held = f"{want.fresh} of {want.needed} groups are fresh and {want.reusable} may be used again"
            return f"{held}: the others are at stream.max_reuse or within stream.reuse_gap; {drawing}"
        case Stall.DRAWING:
            return f"the generators are the bottleneck: {want.fresh} of {want.needed} groups came; {drawing}"
        case Stall.DECODING:
            return (
                f"the pool is the bottleneck: {want.fresh} of {want.needed} groups are decoded; raise"
                " pool.processes, or move the pool to a faster disk"
            )
        case Stall.CHECKPOINT:
            return "the trainer is writing a checkpoint; a full or slow disk holds it up"
        case Stall.PAUSED:
            return "somebody paused the run; `streamrep ctl RUN resume` lets it go on"
        case Stall.OTHER_RANKS:
            blocked = ", ".join(f"rank {rank} ({reason.value})" for rank, reason in want.others)
            return f"this rank has its part of the batch and waits for {blocked}"
