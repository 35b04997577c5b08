"""Few-shot classification: 5 classes, 5 labelled pictures of each, logistic regression, many episodes.

The classifier is that of Tian et al. 2020 (arXiv:2003.11539), on features of unit length with l2 = 1;
StableRep states ways and shots only. The labelled pictures come from train and the asked ones from test, so
that no picture is both.

Shapes: E episodes, W ways, S shots, Q queries a class, F features.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from protocol.errors import UserError
from trainer.evaluation.logistic import fit_logistic

EPISODES = 600
WAYS = SHOTS = 5
QUERIES = 15
EPISODES_AT_ONCE = 50


class FewShot(NamedTuple):
    """Mean accuracy over episodes, and half the width of its 95% interval (normal approximation)."""

    accuracy: float
    interval: float
    episodes: int


class Episodes(NamedTuple):
    """Rows of train and test: what is drawn for each episode."""

    support_EWS: Tensor
    queries_EWQ: Tensor


def draw_episodes(
    train_labels_N: Tensor, test_labels_N: Tensor, *, seed: int, episodes: int = EPISODES
) -> Episodes:
    """Classes with under 5 train or 15 test pictures are left out; where under 5 classes are left, the
    queries are as many as the fifth largest class has. Raises UserError where there are no 5 classes."""
    train = _rows_by_class(train_labels_N)
    test = _rows_by_class(test_labels_N)
    able = able_classes(train_labels_N, test_labels_N)
    if len(able) < WAYS:
        raise UserError(
            "too few classes for few-shot",
            expected=f"{WAYS} classes with {SHOTS} pictures of train and one of test",
            got=str(len(able)),
            where="--kind fewshot",
            mend="leave this kind out",
        )
    queries = min(QUERIES, sorted(able.values())[-WAYS])
    labels = sorted(label for label, count in able.items() if count >= queries)
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: Tensor, count: int) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:count]]

    support, asked = [], []
    for _ in range(episodes):
        ways = [labels[i] for i in torch.randperm(len(labels), generator=generator)[:WAYS].tolist()]
        support.append(torch.stack([draw(train[label], SHOTS) for label in ways]))
        asked.append(torch.stack([draw(test[label], queries) for label in ways]))
    return Episodes(torch.stack(support), torch.stack(asked))


def able_classes(train_labels_N: Tensor, test_labels_N: Tensor) -> dict[int, int]:
    """The number of test pictures of each class that has shots enough."""
    train, test = _rows_by_class(train_labels_N), _rows_by_class(test_labels_N)
    return {label: len(rows) for label, rows in test.items() if len(train.get(label, ())) >= SHOTS}


def few_shot(train_NF: Tensor, test_NF: Tensor, episodes: Episodes, *, l2: float = 1.0) -> FewShot:
    """Mean accuracy of a classifier fitted for each episode."""
    train_NF, test_NF = functional.normalize(train_NF, dim=1), functional.normalize(test_NF, dim=1)
    shares = []
    for support_EWS, queries_EWQ in zip(
        torch.split(episodes.support_EWS, EPISODES_AT_ONCE),
        torch.split(episodes.queries_EWQ, EPISODES_AT_ONCE),
        strict=True,
    ):
        count, ways, shots = support_EWS.shape
        way_W = torch.arange(ways, device=train_NF.device)
        labels_EN = way_W.repeat_interleave(shots).expand(count, -1)
        linear = fit_logistic(train_NF[support_EWS.flatten(1)], labels_EN, ways, l2)
        predicted_EN = linear.predict(test_NF[queries_EWQ.flatten(1)])
        expected_N = way_W.repeat_interleave(queries_EWQ.shape[2])
        shares.append((predicted_EN == expected_N).double().mean(dim=1))
    share_E = torch.cat(shares)
    interval = 1.96 * share_E.std().item() / math.sqrt(len(share_E))
    return FewShot(share_E.mean().item(), interval, len(share_E))


def _rows_by_class(labels_N: Tensor) -> dict[int, Tensor]:
    return {label: (labels_N == label).nonzero()[:, 0] for label in torch.unique(labels_N).tolist()}
