"""Nearest neighbours by cosine similarity: recall at k and the weighted vote.

Shapes: Q queries, G gallery rows, D feature dimensions, K neighbours. Labels are int64.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_QUERIES = 4096
"""Compared with the gallery at once."""


class Recall(NamedTuple):
    """Recall at k and what it was measured on."""

    share: float
    """Of the queries asked, those with their label among the k nearest; NaN where none could be asked."""
    asked: int
    left_out: int
    """Queries whose label is nowhere in the gallery."""


def nearest(query_QD: Tensor, gallery_GD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities and gallery rows, both [Q, K], of the k nearest, nearest first."""
    query_QD = functional.normalize(query_QD.float(), dim=1)
    gallery_GD = functional.normalize(gallery_GD.float(), dim=1)
    # In parts: all similarities of a large set would not fit into memory.
    found = [
        (part_QD @ gallery_GD.T).topk(min(k, len(gallery_GD)), dim=1)
        for part_QD in torch.split(query_QD, _QUERIES)
    ]
    return torch.cat([values for values, _ in found]), torch.cat([rows for _, rows in found])


def recall_at_k(
    query_QD: Tensor, query_labels_Q: Tensor, gallery_GD: Tensor, gallery_labels_G: Tensor, k: int
) -> Recall:
    """Share of the queries with at least one gallery row of the same label among the k nearest."""
    asked_Q = torch.isin(query_labels_Q, gallery_labels_G)
    _, row_QK = nearest(query_QD[asked_Q], gallery_GD, k)
    found_Q = (gallery_labels_G[row_QK] == query_labels_Q[asked_Q][:, None]).any(dim=1)
    asked = int(asked_Q.sum())
    return Recall(found_Q.double().mean().item(), asked, len(asked_Q) - asked)


def knn_accuracy(
    query_QD: Tensor,
    query_labels_Q: Tensor,
    gallery_GD: Tensor,
    gallery_labels_G: Tensor,
    k: int,
    temperature: float,
) -> float:
    """Accuracy of the vote of the k nearest, each weighing exp(similarity / T) (Wu et al. 2018).

    Macro averaged: the mean over the queries' labels of the accuracy on each, whatever their sizes.
    """
    predicted_Q = knn_predict(query_QD, gallery_GD, gallery_labels_G, k, temperature)
    labels = int(torch.cat([query_labels_Q, gallery_labels_G]).max()) + 1
    right_Q = (predicted_Q == query_labels_Q).double()
    asked_L = torch.bincount(query_labels_Q, minlength=labels)
    right_L = torch.bincount(query_labels_Q, weights=right_Q, minlength=labels)
    return (right_L[asked_L > 0] / asked_L[asked_L > 0]).mean().item()


def knn_predict(
    query_QD: Tensor, gallery_GD: Tensor, gallery_labels_G: Tensor, k: int, temperature: float
) -> Tensor:
    """int64 [Q]: the label of most votes among the k nearest, each weighing exp(similarity / T)."""
    similarity_QK, row_QK = nearest(query_QD, gallery_GD, k)
    # Less the largest similarity, so that a small temperature does not overflow; no vote changes.
    weight_QK = ((similarity_QK - similarity_QK[:, :1]) / temperature).exp()
    votes_QL = torch.zeros(len(query_QD), int(gallery_labels_G.max()) + 1, device=weight_QK.device)
    votes_QL.scatter_add_(1, gallery_labels_G[row_QK], weight_QK)
    return votes_QL.argmax(dim=1)
