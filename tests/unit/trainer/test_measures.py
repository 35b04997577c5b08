"""Measures of features against plain loops and closed forms."""

import math

import pytest
import torch

from trainer.measures import alignment, mean_similarity, rankme, uniformity

IDS = [3, 3, 3, 8, 8, 1, 3]


def unit_rows() -> tuple[torch.Tensor, list[list[float]]]:
    features = torch.randn(len(IDS), 4, generator=torch.Generator().manual_seed(2))
    rows = features.double().tolist()
    return features, [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]


def pairs(rows: list[list[float]]) -> list[tuple[int, int, float]]:
    """(i, j, squared distance) of all pairs i < j."""
    count = len(rows)
    return [
        (i, j, sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True)))
        for i in range(count)
        for j in range(i + 1, count)
    ]


def test_alignment_is_the_mean_squared_distance_of_positive_pairs() -> None:
    """Wang & Isola's alignment with alpha 2, over pairs with the same id."""
    features, rows = unit_rows()
    distances = [d for i, j, d in pairs(rows) if IDS[i] == IDS[j]]
    assert alignment(features, torch.tensor(IDS)).item() == pytest.approx(
        sum(distances) / len(distances), rel=1e-5
    )


def test_uniformity_is_the_log_of_the_mean_gaussian_potential() -> None:
    """Wang & Isola's uniformity with t 2, over all pairs of distinct images."""
    features, rows = unit_rows()
    potentials = [math.exp(-2 * d) for _, _, d in pairs(rows)]
    assert uniformity(features).item() == pytest.approx(math.log(sum(potentials) / len(potentials)), rel=1e-5)
    assert uniformity(torch.ones(4, 3)).item() == pytest.approx(0.0, abs=1e-6)


def test_mean_similarity_tells_positive_from_negative_pairs() -> None:
    """Mean cosines of the two kinds of pairs; NaN where a kind is missing."""
    features, rows = unit_rows()
    similar = mean_similarity(features, torch.tensor(IDS))
    positive = [1 - d / 2 for i, j, d in pairs(rows) if IDS[i] == IDS[j]]
    negative = [1 - d / 2 for i, j, d in pairs(rows) if IDS[i] != IDS[j]]
    assert similar.positive.item() == pytest.approx(sum(positive) / len(positive), rel=1e-4)
    assert similar.negative.item() == pytest.approx(sum(negative) / len(negative), rel=1e-4)
    assert math.isnan(mean_similarity(features, torch.arange(len(IDS))).positive.item())


def test_rankme_of_known_spectra() -> None:
    """k equal singular values count as k, and unequal ones as the exponential of their entropy."""
    assert rankme(torch.eye(6)[:, :3]).item() == pytest.approx(3.0, rel=1e-3)
    assert rankme(torch.ones(5, 4)).item() == pytest.approx(1.0, rel=1e-3)
    share = [0.5, 0.25, 0.25]
    entropy = -sum(p * math.log(p) for p in share)
    assert rankme(torch.diag(torch.tensor([2.0, 1.0, 1.0]))).item() == pytest.approx(
        math.exp(entropy), rel=1e-4
    )
