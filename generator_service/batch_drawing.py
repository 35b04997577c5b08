"""A batch of tickets on its way through the engine: begun, and fetched later, so that another may follow it.

begin: Engine.begin ─→ [on the device] ─→ outcomes: a group a ticket
                              └─ an error: each group alone, so that only the guilty ones fail
"""

import time

from generator_service.channel import DrawnGroup, FailedDraw, Outcome
from generator_service.drawing import Drawing
from generator_service.engine import Abandoned, Engine
from generator_service.errors import DrawAbandonedError
from generator_service.packer import Assignment
from protocol.errors import UserError
from protocol.payload import ImagesNHWC

_THE_WORKERS_END = (UserError, DrawAbandonedError, MemoryError)
"""Never a ticket's failure: out of memory above all, and giving up."""


class BatchDrawing:
    """At most a static batch of them."""

    def __init__(self, engine: Engine, batch: list[Assignment], abandoned: Abandoned) -> None:
        """Begins. Raises UserError, MemoryError and DrawAbandonedError, which are the worker's end."""
        self._engine, self._batch, self._abandoned = engine, batch, abandoned
        self.began = time.monotonic()
        self._drawing: Drawing | Exception
        try:
            self._drawing = engine.begin([one.ticket for one in batch], abandoned)
        except _THE_WORKERS_END:
            raise
        except Exception as error:  # whatever a ticket provokes must not cost its neighbours
            self._drawing = error

    @property
    def arrived(self) -> bool:
        """Whether `outcomes` would not wait for the device."""
        return isinstance(self._drawing, Exception) or self._drawing.arrived

    def outcomes(self, free_at: float = 0.0) -> tuple[Outcome, ...]:
        """What became of each ticket; waits for it. Raises as the constructor does.

        `free_at`: when the engine had done what was begun before, on the monotonic clock.
        """
        try:
            groups = self._groups()
        except _THE_WORKERS_END:
            raise
        except Exception as error:  # see above
            if len(self._batch) == 1:
                return (_failed(self._batch[0], error),)
            return tuple(
                outcome
                for one in self._batch
                for outcome in BatchDrawing(self._engine, [one], self._abandoned).outcomes()
            )
        seconds = time.monotonic() - max(self.began, free_at)
        return tuple(
            self._drawn(one, images, seconds) for one, images in zip(self._batch, groups, strict=True)
        )

    def _groups(self) -> list[ImagesNHWC]:
        if isinstance(self._drawing, Exception):
            raise self._drawing
        return self._drawing.groups()

    def _drawn(self, one: Assignment, images_NHWC: ImagesNHWC, seconds: float) -> DrawnGroup:
        return DrawnGroup(
            rank=one.rank,
            group_id=one.ticket.group_id,
            images_NHWC=images_NHWC,
            draw_seconds=seconds,
            caption_cut=self._engine.cuts(one.ticket.caption),
        )


def _failed(one: Assignment, error: Exception) -> FailedDraw:
    return FailedDraw(rank=one.rank, group_id=one.ticket.group_id, reason=f"{type(error).__name__}: {error}")
