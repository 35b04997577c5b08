"""An engine whose static batch fits the device: halved once where memory runs out, at the start or in a run.

build ─→ engine ─OutOfDeviceMemoryError→ let go of it ─→ build with half of the batch ─→ engine, or the error
"""

import gc
import traceback
from collections.abc import Callable

from generator_service.engine import Abandoned, Engine
from generator_service.errors import OutOfDeviceMemoryError
from protocol.generation import GenerationSpec

EngineBuilder = Callable[[GenerationSpec, Abandoned], Engine]
SmallerBuilder = Callable[[int], EngineBuilder]
"""A builder of the same engine with a static batch of so many images."""


class Fitting:
    """Builds a worker's engines: one, and at most one more."""

    def __init__(
        self, build: EngineBuilder, smaller: SmallerBuilder | None, say: Callable[[str], None]
    ) -> None:
        """Without `smaller` nothing is halved."""
        self._build = build
        self._smaller = smaller
        self._say = say

    def build(self, spec: GenerationSpec, abandoned: Abandoned, *, exact: bool) -> Engine:
        """The engine, with half of its batch where the whole one has no room. In an `exact` run no engine may
        be another than the first's. Raises what the engine raises, and OutOfDeviceMemoryError."""
        try:
            return self._build(spec, abandoned)
        except OutOfDeviceMemoryError as error:
            failure = error
        return self.shrink(failure, spec, abandoned, exact=exact)

    def shrink(
        self, failure: OutOfDeviceMemoryError, spec: GenerationSpec, abandoned: Abandoned, *, exact: bool
    ) -> Engine:
        """Another engine in the place of one that ran out of memory, and that nobody holds any more. Raises
        `failure` where there can be none."""
        half = failure.batch_images // 2
        if self._smaller is None or exact or half < spec.views:
            raise failure
        # The frames of the failure still hold what the engine had allocated.
        for error in (failure, failure.__cause__):
            if error is not None:
                traceback.clear_frames(error.__traceback__)
        gc.collect()
        _empty_device_cache()
        self._say(f"warning: {failure}; goes on with generator.batch_images = {half}")
        build, self._smaller = self._smaller(half), None
        return build(spec, abandoned)


def _empty_device_cache() -> None:
    """Gives back to the device what torch keeps for itself."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
