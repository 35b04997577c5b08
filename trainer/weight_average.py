"""An exponential moving average of what a run exports: often better than the last weights."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from trainer.encoder import Encoder


class WeightAverage:
    """`encoder` and `parts` are the averages: of every floating point weight and statistic; the rest is the
    newest."""

    def __init__(self, encoder: Encoder, parts: nn.ModuleDict, decay: float) -> None:
        """`parts` are what the objective exports with the encoder."""
        self.encoder = deepcopy(encoder).requires_grad_(False).eval()
        self.parts = deepcopy(parts).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, encoder: Encoder, parts: nn.ModuleDict, step: int) -> None:
        """Takes in the weights after `step` steps: average = d x average + (1 - d) x weight.

        d = min(decay, (1 + step) / (10 + step)), as TensorFlow ramps it, so that the first weights, which are
        random, are soon forgotten.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        average = self.tensors()
        for name, value in (encoder.state_dict() | parts.state_dict()).items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """The average by the names of the weights, those of a part behind the name of the part."""
        return self.encoder.state_dict() | self.parts.state_dict()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes that back. Raises RuntimeError where they are of other modules."""
        of_parts = {name: value for name, value in tensors.items() if name.split(".", 1)[0] in self.parts}
        self.parts.load_state_dict(of_parts)
        self.encoder.load_state_dict({name: value for name, value in tensors.items() if name not in of_parts})
