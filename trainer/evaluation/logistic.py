"""Logistic regression by L-BFGS, multinomial or one class against the rest, and the choice of its l2.

Shapes: E problems that are solved at once, N rows, F features, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

L2_SWEEP = tuple(torch.logspace(-6, 5, 45, dtype=torch.float64).tolist())
"""SynCLR, appendix B.5, and its main_downstream_linear.py."""
ITERATIONS = 500
"""SynCLR's README; its appendix has 1,000."""


class Linear(NamedTuple):
    """One linear classifier for each of E problems."""

    weight_EFC: Tensor
    bias_E1C: Tensor

    def scores(self, features_ENF: Tensor) -> Tensor:
        """Logits [E, N, C]"""
        return features_ENF @ self.weight_EFC + self.bias_E1C

    def predict(self, features_ENF: Tensor) -> Tensor:
        """int64 [E, N]"""
        return self.scores(features_ENF).argmax(dim=2)


def fit_logistic(
    features_ENF: Tensor,
    targets: Tensor,
    classes: int,
    l2: float,
    *,
    iterations: int = ITERATIONS,
    start: Linear | None = None,
) -> Linear:
    """The least of: sum of cross entropies + l2 / 2 x squared weights, for each problem; biases are free.

    In the dtype of the features. `targets` are labels (int64 [E, N]), or 0 and 1 for each class (floating
    [E, N, C]), which are then independent problems of two classes. scikit-learn's
    LogisticRegression(C=1 / l2) has the same minimum, for the latter one of its own for each class.
    """
    problems, rows, dim = features_ENF.shape
    weight_EFC = features_ENF.new_zeros(problems, dim, classes) if start is None else start.weight_EFC.clone()
    bias_E1C = features_ENF.new_zeros(problems, 1, classes) if start is None else start.bias_E1C.clone()
    parameters = [weight_EFC.requires_grad_(), bias_E1C.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=iterations,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits_ENC = features_ENF @ weight_EFC + bias_E1C
        if targets.dim() == 3:
            entropy = functional.binary_cross_entropy_with_logits(logits_ENC, targets, reduction="sum")
        else:
            entropy = functional.cross_entropy(logits_ENC.flatten(0, 1), targets.flatten(), reduction="sum")
        # Per row, so that the tolerances mean the same for sets of any size.
        loss: Tensor = (entropy + l2 / 2 * weight_EFC.square().sum()) / rows
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    return Linear(weight_EFC.detach(), bias_E1C.detach())


class Chosen(NamedTuple):
    """What `choose_l2` found."""

    l2: float
    sweep: list[tuple[float, float]]
    """(l2, score on the validation rows), in the order of l2."""


def choose_l2(
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    classes: int,
    *,
    score: Callable[[Tensor], float],
    sweep: tuple[float, ...] = L2_SWEEP,
    tried: Callable[[int], None] = lambda count: None,
) -> Chosen:
    """The l2 of the best score on validation, the strongest of equals. Each split is its features [N, F] and
    its targets, [N] or [N, C].

    Each fit starts at the one before it, from strong to weak: the minimum is the same, and it is near.
    `score` judges the [N, C] scores of the validation rows; `tried` hears how many values are done.
    """
    (features_NF, targets), (asked_NF, _) = standardise(train, validation)
    scores: list[tuple[float, float]] = []
    start = None
    for count, l2 in enumerate(sorted(sweep, reverse=True), start=1):
        start = fit_logistic(features_NF[None], targets[None], classes, l2, start=start)
        scores.append((l2, score(start.scores(asked_NF[None])[0])))
        tried(count)
    best = max(scores, key=lambda pair: pair[1])[0]
    return Chosen(best, scores[::-1])


def standardise(
    train: tuple[Tensor, Tensor], *others: tuple[Tensor, Tensor]
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Each feature less its mean over train, divided by its deviation there, as SynCLR's code does."""
    std_F, mean_F = torch.std_mean(train[0], dim=0, correction=0)
    std_F = torch.where(std_F > 0, std_F, 1.0)
    return tuple(((features_NF - mean_F) / std_F, targets) for features_NF, targets in (train, *others))
