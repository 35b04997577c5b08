"""Finished images on their way to the host, beside the next batch's computation.

compute stream  batch 1 ───────┬─ batch 2 ───────┬─ batch 3
copy stream                    └─ images 1 ─→ host └─ images 2 ─→ host

On a CPU there is nothing to copy. With CUDA never executed.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from generator_service.errors import DrawAbandonedError
from generator_service.graphed_loop import LoopOutputs
from protocol.payload import ImagesNHWC

POLL_SECONDS = 0.0005


class Sampled(NamedTuple):
    """A static batch. `broken` are the images whose latents were not all finite."""

    images_NHWC: ImagesNHWC
    broken: tuple[int, ...]


class Copying:
    """One batch's outputs."""

    def __init__(
        self, on_host: LoopOutputs, copied: Callable[[], bool], abandoned: Callable[[], bool]
    ) -> None:
        """`on_host` may be read once `copied` answers true."""
        self._on_host, self._copied, self._abandoned = on_host, copied, abandoned

    @property
    def arrived(self) -> bool:
        """Whether `wait` would return at once."""
        return self._copied()

    def wait(self) -> Sampled:
        """The batch. Raises DrawAbandonedError once nobody waits for it."""
        while not self._copied():
            if self._abandoned():
                raise DrawAbandonedError("while the device computed")
            time.sleep(POLL_SECONDS)
        images_NHWC: ImagesNHWC = self._on_host.images_NHWC.numpy()
        broken = (~self._on_host.finite_N).nonzero().flatten().tolist()
        return Sampled(images_NHWC, tuple(broken))


class OutputCopy:
    """The way from one device to the host."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def start(self, outputs: LoopOutputs, abandoned: Callable[[], bool]) -> Copying:
        """Copies what is being computed once it is there; does not wait."""
        if self._stream is None:
            return Copying(outputs, lambda: True, abandoned)
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                # Page-locked, or the copy would wait for the device after all.
                on_host = LoopOutputs(
                    *(
                        torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True)
                        for t in outputs
                    )
                )
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # see above
                done.record(self._stream)
            for tensor in outputs:  # whose memory may not be given to the next batch before
                tensor.record_stream(self._stream)
        return Copying(on_host, done.query, abandoned)

    def hold_back(self) -> None:
        """What is computed from now on waits for the copies: it may overwrite what they read."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
