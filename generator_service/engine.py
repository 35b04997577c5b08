"""What a worker asks of whatever draws its images."""

from collections.abc import Callable, Sequence
from typing import Protocol

from generator_service.drawing import Drawing
from generator_service.errors import TicketError
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

Abandoned = Callable[[], bool]
"""Asked between two steps of a draw; true once the worker leaves and nobody waits for the images."""


class Engine(Protocol):
    """Draws groups in static batches for one generation spec. Built warm."""

    @property
    def content_hash(self) -> str:
        """What the pixels mean: weights, scheduler, generation spec. Equal on all workers of a run."""

    @property
    def engine_hash(self) -> str:
        """What computes them: engine, dtype, static batch, libraries, device model."""

    @property
    def batch_images(self) -> int:
        """Static batch in images: a whole number of groups."""

    @property
    def exact(self) -> bool:
        """Whether a group was seen to be the same in other slots and among other neighbours."""

    @property
    def batch_seconds(self) -> float:
        """Wall time of one static batch at warm-up."""

    @property
    def summary(self) -> str:
        """Engine, device, precision and model, for people."""

    def begin(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> Drawing:
        """`draw` as far as the host has to do with it: another batch may begin before its groups are fetched,
        and follows it on the device. Raises as `draw` does."""

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        """The tickets' groups, in order; at most a static batch of them.

        Raises TicketError, OutOfDeviceMemoryError, DrawAbandonedError, and what a defect raises.
        """

    def cuts(self, caption: str) -> bool:
        """Whether the caption has more tokens than the text encoder reads, so that its end is not drawn."""


def groups_of(batch_images: int, spec: GenerationSpec) -> int:
    """Groups in a static batch. Raises UserError when not even one fits."""
    if spec.views > batch_images:
        raise UserError(
            "a group does not fit the static batch",
            expected=f"at least generation.views = {spec.views}",
            got=str(batch_images),
            where="generator.batch_images",
            mend="raise it, or lower generation.views",
        )
    return batch_images // spec.views


def check_ticket(ticket: Ticket, spec: GenerationSpec) -> None:
    """Raises TicketError when a ticket was not made for this spec."""
    if ticket.views != spec.views or len(ticket.guidance) != spec.views:
        got = f"{ticket.views} seeds and {len(ticket.guidance)} guidance scales"
        raise TicketError(f"ticket {ticket.group_id}: expected {spec.views} views, got {got}")
    unknown = [scale for scale in ticket.guidance if scale not in spec.guidance]
    if unknown:
        raise TicketError(
            f"ticket {ticket.group_id}: guidance {unknown[0]} is not of the run's {spec.guidance}"
        )
