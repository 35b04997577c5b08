"""The exact gradient of a whole batch in the memory of a part of it.

GradCache (Gao et al. 2021, arXiv:2101.06983, section 3):

    1. forward    embed each part without a graph, and note the random state before it ─→ all rows
    2. elsewhere  loss of the whole batch at these rows ─backward→ the gradient of each row
    3. backward   embed each part again with its random state, and carry its rows' gradient on to the weights

The price is one more forward pass. It is exact as long as a row depends on its own image alone, which batch
norm would break; the head's batch norm comes after the rows and sees all of them.

Shapes: N images, F what an image becomes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from protocol.errors import UserError

Embed = Callable[[slice], Tensor]
"""Images of the batch by position -> their rows [n, F]. Opens its own autocast, whatever the caller's."""


@dataclass(frozen=True)
class _RandomState:
    cpu: Tensor
    cuda: Tensor | None


class MicroBatches:
    """One batch of `images` images that goes through `embed` in parts of at most `size`, once each way."""

    def __init__(self, embed: Embed, images: int, size: int, device: torch.device) -> None:
        self._embed = embed
        self._parts = [slice(start, min(start + size, images)) for start in range(0, images, size)]
        self._device = device
        self._states: list[_RandomState] = []
        self._rows_NF: Tensor | None = None

    def forward(self) -> Tensor:
        """[N, F], a leaf that wants a gradient."""
        parts = []
        with torch.no_grad():
            for part in self._parts:
                self._states.append(self._random_state())
                parts.append(self._embed(part))
        self._rows_NF = torch.cat(parts).requires_grad_()
        return self._rows_NF

    def backward(self) -> None:
        """Adds the gradients of the weights behind `embed`, once the rows have theirs.

        The random state is left as `forward` left it.
        """
        assert self._rows_NF is not None, "forward comes first"
        assert self._rows_NF.grad is not None, "the loss goes backward first"
        for part, state in zip(self._parts, self._states, strict=True):
            with torch.random.fork_rng(devices=[self._device] if state.cuda is not None else []):
                torch.set_rng_state(state.cpu)
                if state.cuda is not None:
                    torch.cuda.set_rng_state(state.cuda, self._device)
                rows_nF = self._embed(part)
            rows_nF.backward(self._rows_NF.grad[part])  # type: ignore[no-untyped-call]  # torch

    def _random_state(self) -> _RandomState:
        on_cuda = self._device.type == "cuda"
        return _RandomState(
            torch.get_rng_state(), torch.cuda.get_rng_state(self._device) if on_cuda else None
        )


def refuse_batch_norm(encoder: nn.Module) -> None:
    """Raises UserError where a row would depend on the other images of its part."""
    layers = sum(isinstance(module, _BatchNorm) for module in encoder.modules())
    if layers:
        raise UserError(
            "the encoder has batch norm, which would see a part of the batch at a time",
            expected="an encoder without it, such as vit or convnextv2",
            got=f"{layers} batch norm layers",
            where="train.micro_batch",
            mend="set it to 0, or choose another model.encoder",
        )
