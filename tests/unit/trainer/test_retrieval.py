"""Recall at k, the kNN vote and the baselines against plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.evaluation.baselines import histogram, pixels
from trainer.evaluation.retrieval import knn_accuracy, recall_at_k


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def ranked(query: list[float], gallery: list[list[float]], k: int) -> list[int]:
    order = sorted(range(len(gallery)), key=lambda row: -cosine(query, gallery[row]))
    return order[:k]


def search_set() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """12 queries and 40 gallery rows; labels 0 to 6, of which the gallery holds 0 to 4."""
    generator = torch.Generator().manual_seed(0)
    gallery_labels = torch.randint(0, 5, (40,), generator=generator)
    query_labels = torch.randint(0, 7, (12,), generator=generator)
    centres = torch.randn(7, 6, generator=generator)
    gallery = centres[gallery_labels] + torch.randn(40, 6, generator=generator)
    query = centres[query_labels] + torch.randn(12, 6, generator=generator)
    return query, query_labels, gallery, gallery_labels


@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_recall_is_the_share_of_queries_with_a_hit(k: int) -> None:
    """Queries with a label that the gallery lacks are left out and counted."""
    query, query_labels, gallery, gallery_labels = search_set()
    hits, left_out = [], 0
    for vector, label in zip(query.tolist(), query_labels.tolist(), strict=True):
        if label not in gallery_labels.tolist():
            left_out += 1
            continue
        rows = ranked(vector, gallery.tolist(), k)
        hits.append(any(gallery_labels[row] == label for row in rows))
    recall = recall_at_k(query, query_labels, gallery, gallery_labels, k)
    assert left_out > 0
    assert recall.left_out == left_out
    assert recall.asked == len(hits)
    assert recall.share == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize("temperature", [0.001, 0.07, 1.0])
def test_knn_accuracy_is_macro_averaged_over_the_queries_labels(temperature: float) -> None:
    """Each neighbour's vote weighs exp(similarity / T); every label of the queries counts the same."""
    query, query_labels, gallery, gallery_labels = search_set()
    right: dict[int, list[bool]] = {}
    for vector, label in zip(query.tolist(), query_labels.tolist(), strict=True):
        votes: dict[int, float] = {}
        for row in ranked(vector, gallery.tolist(), 10):
            weight = math.exp((cosine(vector, gallery[row].tolist()) - 1) / temperature)
            votes[int(gallery_labels[row])] = votes.get(int(gallery_labels[row]), 0) + weight
        right.setdefault(label, []).append(max(votes, key=lambda name: votes[name]) == label)
    expected = sum(sum(r) / len(r) for r in right.values()) / len(right)
    got = knn_accuracy(query, query_labels, gallery, gallery_labels, 10, temperature)
    assert got == pytest.approx(expected)


def test_a_large_subcategory_counts_no_more_than_a_small_one() -> None:
    """Nine right answers of one label and one wrong of another make one half."""
    gallery, gallery_labels = torch.eye(2), torch.tensor([0, 1])
    query = torch.eye(2)[[0] * 10]
    query_labels = torch.tensor([0] * 9 + [1])
    assert knn_accuracy(query, query_labels, gallery, gallery_labels, 1, 0.07) == pytest.approx(0.5)


def test_pixels_compare_by_correlation() -> None:
    """The cosine of two features is NumPy's correlation of the images; brightness doesn't count."""
    images = np.random.default_rng(0).integers(0, 120, (2, 32, 32, 3)).astype(np.uint8)
    features = pixels(np.concatenate([images, images[:1] * 2]))
    unit = torch.nn.functional.normalize(features, dim=1)
    expected = np.corrcoef(images.reshape(2, -1).astype(np.float64))[0, 1]
    assert (unit[0] @ unit[1]).item() == pytest.approx(expected, abs=1e-5)
    assert (unit[0] @ unit[2]).item() == pytest.approx(1.0, abs=1e-5)


def test_histogram_counts_each_cell_of_the_colour_cube() -> None:
    """Shares of 8 x 8 x 8 cells, counted by NumPy's histogramdd, under a square root."""
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    features = histogram(images)
    for row, image in zip(features.numpy(), images, strict=True):
        counts, _ = np.histogramdd(image.reshape(-1, 3), bins=[np.arange(0, 257, 32)] * 3)
        np.testing.assert_allclose(row**2, counts.ravel() / 256, atol=1e-6)
