"""How many different images are there, really? The Vendi score (Friedman and Dieng, 2022)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

POOLED = 4
"""Pixels a side that become one."""


def vendi_score(features_ND: Tensor) -> float:
    """Of features of unit length: the exponential of the entropy of their similarity's spectrum.

    From 1, where all are alike, to N, where all are at right angles.
    """
    values = torch.linalg.eigvalsh((features_ND @ features_ND.T).double() / len(features_ND))
    values = values.clamp(min=1e-12)
    return float(torch.exp(-(values * values.log()).sum()))


def pixel_features(images_NCHW: Tensor, mean_CHW: Tensor) -> Tensor:
    """Unit rows [N, D]: the images at a quarter of the size, without the mean image."""
    return F.normalize(F.avg_pool2d(images_NCHW - mean_CHW, POOLED).flatten(1), dim=1)


def mean_vendi(groups: Iterable[Tensor]) -> float:
    """The mean score of groups of unit rows, [N, D] each: diversity within a caption."""
    scores = [vendi_score(features_ND) for features_ND in groups]
    return sum(scores) / len(scores)
