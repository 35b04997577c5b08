"""The whole loop of a static batch as one CUDA graph: the device runs it without the host. Never executed.

first batch   copied to buffers that stay, computed to warm up, captured
every batch   copied to the buffers, replayed; the outputs are the captured ones, until the next replay
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from generator_service.forward import Conditions
from protocol.errors import UserError

_WARM_UPS = 3
"""torch's documentation has as many: what allocates or chooses kernels lazily must have done so."""


@dataclass(frozen=True, kw_only=True)
class LoopInputs:
    """All that changes from one batch to the next, on the device."""

    conditions: Conditions
    scale_N111: Tensor
    noise: tuple[Tensor, ...]
    """That of the first latents, then of each step that takes some."""

    def tensors(self) -> list[Tensor]:
        """In a fixed order."""
        return [*self.conditions.tensors(), self.scale_N111, *self.noise]

    def clone(self) -> "LoopInputs":
        """In memory of its own."""
        known = self.conditions
        return LoopInputs(
            conditions=Conditions(
                text_NTD=known.text_NTD.clone(),
                guidance_NE=_clone(known.guidance_NE),
                pooled_NP=_clone(known.pooled_NP),
                time_ids_N6=_clone(known.time_ids_N6),
            ),
            scale_N111=self.scale_N111.clone(),
            noise=tuple(tensor.clone() for tensor in self.noise),
        )


def _clone(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


class LoopOutputs(NamedTuple):
    """`images_NHWC` uint8; `finite_N` whether an image's latents were numbers."""

    images_NHWC: Tensor
    finite_N: Tensor


class Captured(NamedTuple):
    """`replay` computes `outputs` anew from the memory that was captured."""

    outputs: LoopOutputs
    replay: Callable[[], None]


class GraphedLoop:
    """Computes what `loop` does; `capture` is `capture_on` of a device."""

    def __init__(
        self,
        loop: Callable[[LoopInputs], LoopOutputs],
        capture: Callable[[Callable[[], LoopOutputs]], Captured],
    ) -> None:
        self._loop, self._capture = loop, capture
        self._captured: tuple[LoopInputs, Captured] | None = None

    def __call__(self, inputs: LoopInputs) -> LoopOutputs:
        """Raises UserError for a loop that can't be captured."""
        if self._captured is None:
            kept = inputs.clone()
            self._captured = kept, self._capture(lambda: self._loop(kept))
        kept, captured = self._captured
        for tensor, fresh in zip(kept.tensors(), inputs.tensors(), strict=True):
            tensor.copy_(fresh)
        captured.replay()
        return captured.outputs


def capture_on(device: torch.device) -> Callable[[Callable[[], LoopOutputs]], Captured]:
    """Raises UserError for a device that has no graphs."""
    if device.type != "cuda":
        raise _refusal("a CUDA device", device.type)

    def capture(compute: Callable[[], LoopOutputs]) -> Captured:
        with torch.cuda.device(device):
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    compute()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):
                    outputs = compute()
            except torch.OutOfMemoryError:
                raise  # a smaller batch may do
            except RuntimeError as error:
                raise _refusal("an engine whose work CUDA can capture", str(error).splitlines()[0]) from error
        return Captured(outputs, graph.replay)

    return capture


def _refusal(expected: str, got: str) -> UserError:
    return UserError(
        "the loop cannot be a CUDA graph",
        expected=expected,
        got=got,
        where="generator.cuda_graphs",
        mend="set it to false",
    )
