"""The compute thread: batch after batch, the images of one fetched while the device draws the next.

Link.next_batch ─batch→ BatchDrawing ─→ pending ─outcomes→ Link.hand_over, Tally
                            │ out of memory: the pending one is fetched, the engine replaced by a smaller one
"""

import time
from collections.abc import Callable

from generator_service.batch_drawing import BatchDrawing
from generator_service.channel import Outcome
from generator_service.conversation import Equipment
from generator_service.engine import Engine
from generator_service.errors import OutOfDeviceMemoryError
from generator_service.fitting import Fitting
from generator_service.link import Link
from generator_service.packer import Assignment
from generator_service.status_line import status_line
from generator_service.tally import Tally
from protocol.generation import GenerationSpec

STATUS_SECONDS = 30.0
ARRIVAL_SECONDS = 0.002
"""Between two looks at whether the device is done, while no further batch has come."""


class DrawingLoop:
    """Draws until the link has no more batches. Builds its engine itself, and lets go of one it replaces."""

    def __init__(
        self, fitting: Fitting, spec: GenerationSpec, link: Link, tally: Tally, say: Callable[[str], None]
    ) -> None:
        """Builds and equips. Raises what the engine raises."""
        self._fitting, self._spec, self._link, self._tally, self._say = fitting, spec, link, tally, say
        self._pending: BatchDrawing | None = None
        self._free_at = 0.0
        self._status = _Status(spec.views, link, say)
        self._engine: Engine | None = fitting.build(spec, link.abandoned.is_set, exact=link.exact)
        self._equip(self._engine)

    def run(self) -> None:
        """Raises UserError, MemoryError and DrawAbandonedError: the worker's end."""
        while (batch := self._next_batch()) is not None:
            begun = self._begin(batch)
            # The one before, while the device draws this one.
            self._fetch()
            self._pending = begun
        self._fetch()

    def _next_batch(self) -> list[Assignment] | None:
        """Waits for one, and fetches what the device has done meanwhile."""
        while True:
            if self._pending is not None and self._pending.arrived:
                self._fetch()
            self._status.say_when_due()
            busy = self._pending is not None
            batch = self._link.next_batch(ARRIVAL_SECONDS if busy else self._status.seconds_left(), full=busy)
            if batch is None or batch:
                return batch

    def _fetch(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._hand_over(pending.outcomes(self._free_at), pending.began)

    def _hand_over(self, outcomes: tuple[Outcome, ...], began: float) -> None:
        now = time.monotonic()
        self._link.hand_over(outcomes)
        self._tally.count(outcomes, now - max(began, self._free_at))
        self._free_at = now

    def _begin(self, batch: list[Assignment]) -> BatchDrawing | None:
        """None where the batch had to be drawn by a smaller engine, to its end."""
        try:
            return self._begun(batch)
        except OutOfDeviceMemoryError as error:
            failure = error
        self._fetch()
        began = time.monotonic()
        self._engine = None
        self._engine = self._fitting.shrink(
            failure, self._spec, self._link.abandoned.is_set, exact=self._link.exact
        )
        self._equip(self._engine)
        self._hand_over(self._drawn_in_parts(batch), began)
        return None

    def _begun(self, batch: list[Assignment]) -> BatchDrawing:
        assert self._engine is not None, "it is replaced as soon as it is let go of"
        return BatchDrawing(self._engine, batch, self._link.abandoned.is_set)

    def _drawn_in_parts(self, batch: list[Assignment]) -> tuple[Outcome, ...]:
        """Of a batch that was packed for a larger engine."""
        assert self._engine is not None, "see above"
        groups = self._engine.batch_images // self._spec.views
        parts = [batch[start : start + groups] for start in range(0, len(batch), groups)]
        return tuple(outcome for part in parts for outcome in self._begun(part).outcomes())

    def _equip(self, engine: Engine) -> None:
        self._say(f"{engine.summary}, static batch of {engine.batch_images} images, exact: {engine.exact}")
        equipment = Equipment(
            content=engine.content_hash,
            engine=engine.engine_hash,
            batch_images=engine.batch_images,
            exact=engine.exact,
        )
        groups = engine.batch_images // self._spec.views
        self._link.equip(equipment, groups_per_batch=groups, batch_seconds=engine.batch_seconds)


class _Status:
    """A line for people every 30 s."""

    def __init__(self, views: int, link: Link, say: Callable[[str], None]) -> None:
        self._views, self._link, self._say = views, link, say
        self._said_at = time.monotonic()
        self._groups = 0

    def seconds_left(self) -> float:
        return max(0.0, self._said_at + STATUS_SECONDS - time.monotonic())

    def say_when_due(self) -> None:
        if self.seconds_left() > 0:
            return
        now, groups = time.monotonic(), self._link.groups_sent
        rate = (groups - self._groups) * self._views / (now - self._said_at)
        self._say(status_line(rate, groups, self._link.malformed))
        self._said_at, self._groups = now, groups
