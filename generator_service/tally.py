"""What the compute thread has drawn, counted by it and read by whoever watches the worker."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generator_service.channel import DrawnGroup, Outcome
from monitoring.histogram import Histogram, HistogramCounts
from protocol.payload import ImagesNHWC

BATCH_SECONDS_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0)
"""From a small batch on a GPU to a large one on a CPU."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Totals at one moment."""

    images: int
    failed_groups: int
    constant_images: int
    """Of one colour: black ones are what a model that overflows or a safety filter leaves."""
    batch_seconds: HistogramCounts


class Tally:
    """Totals of one worker since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images = 0
        self._failed_groups = 0
        self._constant_images = 0
        self._batch_seconds = Histogram(BATCH_SECONDS_BOUNDS)

    def count(self, outcomes: Iterable[Outcome], seconds: float) -> None:
        """One static batch came to these outcomes in so many seconds."""
        images = failed = constant = 0
        for outcome in outcomes:
            if isinstance(outcome, DrawnGroup):
                images += len(outcome.images_NHWC)
                constant += _count_constant(outcome.images_NHWC)
            else:
                failed += 1
        with self._lock:
            self._images += images
            self._failed_groups += failed
            self._constant_images += constant
        self._batch_seconds.observe(seconds)

    def drawn(self) -> Drawn:
        """All so far, on any thread."""
        with self._lock:
            return Drawn(
                self._images, self._failed_groups, self._constant_images, self._batch_seconds.counts()
            )


def _count_constant(images_NHWC: ImagesNHWC) -> int:
    """Images all of whose pixels are their first."""
    return sum(map(_is_constant, images_NHWC))


def _is_constant(image_HWC: npt.NDArray[np.uint8]) -> bool:
    """Whether each pixel is the one before it. Ends at the first that is not: looking at all pixels of all
    images took longer than the way to the trainer."""
    values = np.ascontiguousarray(image_HWC).reshape(-1).data
    return bool(values[3:] == values[:-3])
