"""An exponential moving average of the encoder's weights: often a better encoder than the last weights."""

from copy import deepcopy

import torch

from trainer.encoder import Encoder


class EncoderAverage:
    """`encoder` is the average: of every floating point weight and statistic; the rest is the newest."""

    def __init__(self, encoder: Encoder, decay: float) -> None:
        self.encoder = deepcopy(encoder).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, encoder: Encoder, step: int) -> None:
        """Takes in the weights after `step` steps: average = d x average + (1 - d) x weight.

        d = min(decay, (1 + step) / (10 + step)), as TensorFlow ramps it, so that the first weights, which are
        random, are soon forgotten.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        average, newest = self.encoder.state_dict(), encoder.state_dict()
        for name, value in newest.items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)
