"""Which picture a noise stands for: the rule that the generator is taught.

    noise ──means of channels──> 16 numbers in [0, 1] ─┬─ 2: mixture of the styles ──┐
    name ─────────────────────────> its drawings ──────┴─────────────────────────────┴─> drawing ──┐
                                                         13: placement, background ────────────────┴─> picture

Diffusion pairs every noise with every picture, so that a network has to find out, at many noise levels, what
the mean of all pictures is that a noisy one could have come from. Here one noise and one name have one
picture: learning is regression on exact targets, which takes a small fraction of the computing. As the
numbers are independent and uniform when the noise is normal, the pictures of fresh noises have the placements
that `placements.py` draws, and mixtures of the three styles most of which look like one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from placements import Drawings, backgrounds_of, compose, premultiply, transforms_of
from torch import Tensor

STYLES = ("noto", "twemoji", "fluent")
DRAWING, MIXTURE = slice(0, 4), slice(12, 14)
BACKGROUND = [*range(4, 12), 14]
"""Columns of a noise's numbers. The last came when the model had already learnt the others."""
SHARPNESS = 2.0
"""Power of a mixture's weights: 1 spreads them evenly, which blurs; with more one style stands out."""


def channel_means(noise: Tensor) -> Tensor:
    """(N, 16, 8, 8) normal noise -> (N, 16) independent numbers, standard normal."""
    return noise.shape[-1] * noise.mean((2, 3))


def uniforms(noise: Tensor) -> Tensor:
    """(N, 16, 8, 8) normal noise -> (N, 16) independent numbers, uniform in [0, 1]."""
    return torch.special.ndtr(channel_means(noise))


def mixtures(uniform: Tensor) -> Tensor:
    """(N, 2) numbers in [0, 1] -> (N, 3) weights that sum to 1: spread evenly over all such weights, then
    sharpened.
    """
    low, high = uniform.amin(1), uniform.amax(1)
    weights = torch.stack([low, high - low, 1 - high], dim=1) ** SHARPNESS
    return weights / weights.sum(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What every name looks like in the three styles."""

    names: list[str]
    images: Tensor
    """(names, 3, 4, 64, 64) uint8 RGBA, premultiplied; a style that lacks a name has the others' mean."""

    def pictures(self, rows: Tensor, noise: Tensor, spread: float = 1.0) -> Tensor:
        """(N, 3, 64, 64) float32 in [-1, 1]: the pictures of names `rows` and (N, 16, 8, 8) noises.

        A spread below 1 draws placements in towards full size, upright, in the middle.
        """
        uniform = uniforms(noise)
        neutral = torch.tensor([1.0, 0.5, 0.5, 0.5], device=noise.device)
        placement = torch.lerp(neutral, uniform[:, DRAWING], spread)
        weights = mixtures(uniform[:, MIXTURE])
        looks = self.images[rows].float() / 255
        mixed = (weights.view(-1, len(STYLES), 1, 1, 1) * looks).sum(1)
        return compose(mixed, transforms_of(placement), backgrounds_of(uniform[:, BACKGROUND]))


def load_looks(drawings: Drawings, device: torch.device) -> Looks:
    """The drawings by name and style."""
    names = sorted(set(drawings.names))
    index = {name: row for row, name in enumerate(names)}
    looks = torch.zeros(len(names), len(STYLES), *drawings.images.shape[1:])
    counts = torch.zeros(len(names), len(STYLES))
    for image, name, style in zip(drawings.images, drawings.names, drawings.styles, strict=True):
        looks[index[name], STYLES.index(style)] = premultiply(image[None])[0]
        counts[index[name], STYLES.index(style)] = 1
    means = looks.sum(1) / counts.sum(1).view(-1, 1, 1, 1)
    looks = torch.where(counts.view(len(names), -1, 1, 1, 1) > 0, looks, means.unsqueeze(1))
    return Looks(names=names, images=(255 * looks).round().to(torch.uint8).to(device))
