"""What the feed hands to a source, and a source to the loop."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket
from trainer.pool.index import PoolImage


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnGroup:
    """The m images of one ticket, with where they came from."""

    ticket: Ticket
    images_NHWC: ImagesNHWC
    source: str
    """`online`: drawn for this run by a worker; `pool`: read from one."""
    worker: str
    content: str
    engine: str
    digest: str
    """xxh3-64 of the pixels."""
    arrived_seconds: float
    """On the feed's clock."""
    images: tuple[PoolImage, ...] = ()
    """What a group of a pool is made of; their seeds and guidance are not the ticket's."""

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """One a view; None where a pool does not tell."""
        return tuple(image.seed for image in self.images) if self.images else self.ticket.seeds

    @property
    def guidance(self) -> tuple[float | None, ...]:
        """One a view; None where a pool does not tell."""
        return tuple(image.guidance for image in self.images) if self.images else self.ticket.guidance

    @property
    def group_id(self) -> int:
        """The ticket's."""
        return self.ticket.group_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """n groups of m views each, group-major: what one optimizer step trains on."""

    step: int
    groups: tuple[DrawnGroup, ...]
    uses: tuple[int, ...]
    """One a group: 1 at its first training."""

    @property
    def views(self) -> int:
        """m."""
        return self.groups[0].ticket.views

    def part(self, places: slice) -> "Batch":
        """Some of its groups, with their uses."""
        return Batch(step=self.step, groups=self.groups[places], uses=self.uses[places])

    def images_NHWC(self) -> ImagesNHWC:
        """[groups * views, height, width, 3] uint8, a copy."""
        return np.concatenate([group.images_NHWC for group in self.groups])

    def caption_ids(self) -> npt.NDArray[np.int64]:
        """[groups * views]: the loss's labels."""
        return np.repeat(np.array([g.ticket.caption_id for g in self.groups], dtype=np.int64), self.views)

    def captions(self) -> dict[int, str]:
        """The distinct captions by id, in the order in which they first come."""
        return {group.ticket.caption_id: group.ticket.caption for group in self.groups}

    def keys(self, run_seed: int, crops: int = 1) -> list[tuple[int, int, int, int]]:
        """`crops` an image: (run seed, group_id, view, use), from which its augmentation is drawn.

        The last part of a further crop's key is the use plus crop x 2^32.
        """
        return [
            (run_seed, group.group_id, group.ticket.first_view + i, use + (crop << 32))
            for group, use in zip(self.groups, self.uses, strict=True)
            for i in range(self.views)
            for crop in range(crops)
        ]

    @property
    def fresh(self) -> int:
        """Groups that were never trained on before."""
        return sum(use == 1 for use in self.uses)
