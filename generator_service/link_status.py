"""What a worker's I/O thread leaves for whoever watches the worker from another thread."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from generator_service.conversation import Conversation, Vitals


@dataclass(frozen=True, kw_only=True)
class LinkStatus:
    """One moment of the link. Times are seconds."""

    at: float = field(default_factory=time.monotonic)
    """When this was seen, on the monotonic clock: it gets old when the I/O thread hangs."""
    ranks: int = 1
    """Of the trainer, as far as they are known."""
    connected: int = 0
    """Those that answer."""
    equipped: bool = False
    """Whether one of them knows this worker's engine."""
    lost_seconds: float = 0.0
    """Since when no rank has answered; 0 while one does."""
    drawing_seconds: float = 0.0
    """Since the batch under way was begun; 0 when there is none."""
    batch_seconds: float = 0.0
    """95th percentile of the recent batches."""
    groups_sent: int = 0
    malformed: Mapping[str, int] = field(default_factory=dict)
    """Messages of trainers that were dropped, by reason."""
    failure: str = ""
    """What ended the I/O thread; empty while it lives, and when it ended in order."""


def observe(
    conversations: Sequence[Conversation],
    vitals: Vitals,
    now: float,
    groups_sent: int,
    malformed: Mapping[str, int],
    failure: Exception | None,
) -> LinkStatus:
    """To be called on the I/O thread, which owns all of these."""
    lost = [one.lost_at for one in conversations if one.lost_at is not None]
    connected = len(conversations) - len(lost)
    return LinkStatus(
        at=now,
        ranks=len(conversations),
        connected=connected,
        equipped=any(one.active for one in conversations),
        lost_seconds=0.0 if connected or not lost else now - max(lost),
        drawing_seconds=vitals.idle_seconds,
        batch_seconds=vitals.batch_seconds,
        groups_sent=groups_sent,
        malformed=dict(malformed),
        failure="" if failure is None else str(failure) or repr(failure),
    )
