"""The feeds of all ranks as one, for people and metrics."""

from collections import Counter
from collections.abc import Sequence

from trainer.feed.feed import FeedStatus


def total(statuses: Sequence[FeedStatus]) -> FeedStatus:
    """Groups and refusals add up. A worker is with every rank, so of workers the largest count is taken."""
    if len(statuses) == 1:
        return statuses[0]
    refused: Counter[str] = Counter()
    for status in statuses:
        refused.update(status.refused)
    heard = [s.heard_seconds_ago for s in statuses if s.heard_seconds_ago is not None]
    return FeedStatus(
        workers=max(s.workers for s in statuses),
        groups_received=sum(s.groups_received for s in statuses),
        buffered=sum(s.buffered for s in statuses),
        leased=sum(s.leased for s in statuses),
        wanted=sum(s.wanted for s in statuses),
        dead_letters=sum(s.dead_letters for s in statuses),
        refused=dict(refused),
        joined=max(s.joined for s in statuses),
        connected=max(s.connected for s in statuses),
        left_silently=any(s.left_silently for s in statuses),
        heard_seconds_ago=min(heard, default=None),
        oldest_lease_seconds=max(s.oldest_lease_seconds for s in statuses),
        issued_again=sum(s.issued_again for s in statuses),
        captions_cut=sum(s.captions_cut for s in statuses),
        failure=next((s.failure for s in statuses if s.failure), ""),
    )
