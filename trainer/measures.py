"""What a batch of features looks like, logged beside the loss. Pure functions that return scalar tensors.

Shapes: N images, D dimensions of the projected features, F of the encoder's. Ids are int64 caption ids.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class MeanSimilarity(NamedTuple):
    """Mean cosine similarity of pairs of distinct images; NaN where there is no such pair."""

    positive: Tensor
    negative: Tensor


def _cosine(features_ND: Tensor) -> Tensor:
    with torch.autocast(features_ND.device.type, enabled=False):
        unit_ND = functional.normalize(features_ND.detach().float(), dim=1)
        return unit_ND @ unit_ND.T


def _positive_pairs(ids_N: Tensor) -> tuple[Tensor, Tensor]:
    """Masks [N, N] of the pairs of distinct images with the same id, and with different ids."""
    same_NN = ids_N[:, None] == ids_N[None, :]
    itself_NN = torch.eye(len(ids_N), dtype=torch.bool, device=ids_N.device)
    return same_NN & ~itself_NN, ~same_NN


def alignment(features_ND: Tensor, ids_N: Tensor) -> Tensor:
    """Mean squared distance of normalised positive pairs (Wang & Isola 2020, alpha 2); NaN without a pair."""
    positive_NN, _ = _positive_pairs(ids_N)
    return (2 - 2 * _cosine(features_ND))[positive_NN].mean()


def uniformity(features_ND: Tensor) -> Tensor:
    """Log of the mean of exp(-2 x squared distance) over distinct pairs (Wang & Isola 2020, t 2)."""
    distance_NN = 2 - 2 * _cosine(features_ND)
    upper = torch.triu_indices(len(features_ND), len(features_ND), offset=1, device=features_ND.device)
    return (-2 * distance_NN[upper[0], upper[1]]).exp().mean().log()


def rankme(features_NF: Tensor) -> Tensor:
    """Effective rank: exp of the entropy of normalised singular values (Garrido et al. 2023, equation 2)."""
    values: Tensor = torch.linalg.svdvals(features_NF.detach().float())
    share = values / values.sum() + 1e-7
    return (-(share * share.log()).sum()).exp()


def mean_similarity(features_ND: Tensor, ids_N: Tensor) -> MeanSimilarity:
    """How alike images of one caption are, and images of different captions."""
    cosine_NN = _cosine(features_ND)
    positive_NN, negative_NN = _positive_pairs(ids_N)
    return MeanSimilarity(cosine_NN[positive_NN].mean(), cosine_NN[negative_NN].mean())
