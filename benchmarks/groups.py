"""Groups that a benchmark hands to a learner itself: no worker drew them for the run."""

from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket
from trainer.batch import DrawnGroup


def group_of(ticket: Ticket, images_NHWC: ImagesNHWC, source: str) -> DrawnGroup:
    """The ticket's group with these images, uint8 [views, height, width, 3]."""
    return DrawnGroup(
        ticket=ticket,
        images_NHWC=images_NHWC,
        source=source,
        worker="",
        content="",
        engine="",
        digest="",
        arrived_seconds=0.0,
    )
