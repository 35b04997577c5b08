"""What a failing draw costs: the guilty ticket alone, or the worker."""

from collections.abc import Sequence

import numpy as np
import pytest

from generator_service.batch_drawing import BatchDrawing
from generator_service.channel import DrawnGroup, FailedDraw
from generator_service.engine import Abandoned
from generator_service.errors import DrawAbandonedError, OutOfDeviceMemoryError
from generator_service.fake import FakeEngine, draw_fake_group
from generator_service.packer import Assignment
from protocol.generation import GenerationSpec
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

SPEC = GenerationSpec(views=2, size=16, guidance=(1.0,))


class _Raising(FakeEngine):
    """Raises an error whenever a batch holds the caption `bad`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(SPEC, batch_images=6)
        self._error = error

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        if any(ticket.caption == "bad" for ticket in tickets):
            raise self._error
        return super().draw(tickets, abandoned)


def _batch(make_ticket) -> list[Assignment]:
    captions = ["good", "bad", "fine"]
    return [Assignment(rank=i, ticket=make_ticket(i, text, views=2)) for i, text in enumerate(captions)]


def test_only_the_guilty_ticket_fails(make_ticket) -> None:
    """Its neighbours are drawn alone, with the same pixels."""
    batch = _batch(make_ticket)
    first, second, third = BatchDrawing(
        _Raising(ValueError("no such thing")), batch, lambda: False
    ).outcomes()
    assert second == FailedDraw(rank=1, group_id=1, reason="ValueError: no such thing")
    for one, outcome in ((batch[0], first), (batch[2], third)):
        assert isinstance(outcome, DrawnGroup)
        assert (outcome.rank, outcome.group_id) == (one.rank, one.ticket.group_id)
        assert np.array_equal(outcome.images_NHWC, draw_fake_group(one.ticket, 16))


@pytest.mark.parametrize(
    "error", [OutOfDeviceMemoryError("gpu", 6, "none left"), DrawAbandonedError("leaving"), MemoryError()]
)
def test_some_errors_are_the_workers_end(error: Exception, make_ticket) -> None:
    """Out of memory and giving up never fail a ticket."""
    with pytest.raises(type(error)):
        BatchDrawing(_Raising(error), _batch(make_ticket), lambda: False).outcomes()


def test_a_group_tells_whether_its_caption_was_cut(make_ticket) -> None:
    """As the engine says, group by group."""

    class Cutting(FakeEngine):
        def cuts(self, caption: str) -> bool:
            return caption == "bad"

    outcomes = BatchDrawing(Cutting(SPEC, batch_images=6), _batch(make_ticket), lambda: False).outcomes()
    assert [isinstance(one, DrawnGroup) and one.caption_cut for one in outcomes] == [False, True, False]
