"""What the first rank is told of the others' steps, for the files that it alone writes.

other ranks ─RankReport (MessagePack)→ first rank → Batch without pixels → ledger, done ids, metrics
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from trainer.batch import Batch, DrawnGroup
from trainer.composition import Held, Use
from trainer.feed.feed import FeedStatus
from trainer.plan import Plan
from trainer.pool.index import PoolImage
from trainer.rank_group import RankGroup
from trainer.supply import Supply

_NO_PIXELS = np.empty((0, 0, 0, 3), np.uint8)


class Origin(Struct, frozen=True):
    """Where a group that was trained on for the first time came from: what no ticket tells."""

    source: str
    worker: str
    content: str
    engine: str
    digest: str
    arrived_seconds: float
    images: tuple[PoolImage, ...]


class RankReport(Struct, frozen=True):
    """One rank's part of one step."""

    step: int
    uses: tuple[Use, ...]
    origins: dict[int, Origin]
    """By group id, of the groups at their first use."""
    ring_groups: int
    status: FeedStatus
    dead_letters: dict[int, str]


class RankReports:
    """One rank's end of the reports. All ranks report every step, and their rings at every checkpoint."""

    def __init__(self, ranks: RankGroup, plan: Plan, supply: Supply) -> None:
        self._ranks = ranks
        self._plan = plan
        self._supply = supply
        self.other_ring_groups = 0
        """Groups held for further use by the other ranks; known to the first rank alone."""

    def exchange(self, batch: Batch, ring_groups: int) -> list[Batch]:
        """To be called after a step with this rank's part. Gives the first rank every rank's part, in rank
        order, those of others without pixels, and the others their own."""
        if self._ranks.world == 1:
            return [batch]
        told = self._ranks.share(b"" if self._ranks.is_first else self._report(batch, ring_groups))
        if not self._ranks.is_first:
            return [batch]
        reports = [msgspec.msgpack.decode(one, type=RankReport) for one in told[1:]]
        self.other_ring_groups = sum(report.ring_groups for report in reports)
        self._supply.hear(
            [report.status for report in reports],
            {group_id: why for report in reports for group_id, why in report.dead_letters.items()},
        )
        return [batch, *(without_pixels(report, self._plan) for report in reports)]

    def rings(self, own: Sequence[Held]) -> tuple[Held, ...]:
        """What all ranks hold for further use, by their ids; to be called by all for a checkpoint."""
        if self._ranks.world == 1:
            return tuple(own)
        told = self._ranks.share(msgspec.msgpack.encode(tuple(own)))
        return tuple(sorted(h for one in told for h in msgspec.msgpack.decode(one, type=list[Held])))

    def _report(self, batch: Batch, ring_groups: int) -> bytes:
        pairs = list(zip(batch.groups, batch.uses, strict=True))
        report = RankReport(
            step=batch.step,
            uses=tuple((group.group_id, use) for group, use in pairs),
            origins={group.group_id: _origin(group) for group, use in pairs if use == 1},
            ring_groups=ring_groups,
            status=self._supply.own_status(),
            dead_letters=self._supply.dead_letters(),
        )
        return msgspec.msgpack.encode(report)


def merged(parts: Sequence[Batch]) -> Batch:
    """The whole batch of a step."""
    return Batch(
        step=parts[0].step,
        groups=tuple(group for part in parts for group in part.groups),
        uses=tuple(use for part in parts for use in part.uses),
    )


def without_pixels(report: RankReport, plan: Plan) -> Batch:
    """The batch that a report is of. Groups at a later use know their tickets alone."""
    groups = []
    for group_id, _ in report.uses:
        origin = report.origins.get(group_id)
        ticket = plan.ticket(group_id)
        fields = msgspec.structs.asdict(origin) if origin else _UNKNOWN
        groups.append(DrawnGroup(ticket=ticket, images_NHWC=_NO_PIXELS, **fields))
    return Batch(step=report.step, groups=tuple(groups), uses=tuple(use for _, use in report.uses))


def _origin(group: DrawnGroup) -> Origin:
    return Origin(
        source=group.source,
        worker=group.worker,
        content=group.content,
        engine=group.engine,
        digest=group.digest,
        arrived_seconds=group.arrived_seconds,
        images=group.images,
    )


_UNKNOWN = msgspec.structs.asdict(
    Origin(source="", worker="", content="", engine="", digest="", arrived_seconds=0.0, images=())
)
