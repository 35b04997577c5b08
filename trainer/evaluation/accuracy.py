"""How often predictions are right: of all, of each class, of each group, and of the worst of them.

Shapes: N pictures. Labels and predictions are int64. The worst class and group are the papers' view of
fairness: a good mean can hide a class that is never recognised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares of 0 to 1."""

    accuracy: float
    mean_class: float
    """The mean over classes, whatever their sizes."""
    worst_class: float
    worst_class_name: str
    by_class: dict[str, float]
    """Classes that the pictures have."""
    worst_group: float | None
    """None where the set has no groups."""
    by_group: dict[str, float]


def measure_accuracy(
    predicted_N: Tensor, labels_N: Tensor, classes: Sequence[str], groups: Sequence[str]
) -> Accuracy:
    """Of pictures with these labels and, where they are not all empty, groups."""
    right_N = (predicted_N.cpu() == labels_N.cpu()).double()
    by_class = {}
    for number in torch.unique(labels_N).tolist():
        by_class[classes[number]] = right_N[labels_N == number].mean().item()
    by_group = {}
    for group in sorted(set(groups) - {""}):
        rows = torch.tensor([other == group for other in groups])
        by_group[group] = right_N[rows].mean().item()
    worst = min(by_class, key=lambda name: by_class[name])
    return Accuracy(
        accuracy=right_N.mean().item(),
        mean_class=sum(by_class.values()) / len(by_class),
        worst_class=by_class[worst],
        worst_class_name=worst,
        by_class=by_class,
        worst_group=min(by_group.values()) if by_group else None,
        by_group=by_group,
    )
