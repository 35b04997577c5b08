"""How well scores rank the pictures of each class before all others, where one may have several classes.

Two readings of a class's precision at each distinct score, highest first: the area under it (scikit-learn's
average_precision_score), and Pascal VOC's of 2007, the mean over the recalls 0, 0.1 ... 1 of the greatest
precision at that recall or beyond, in which SynCLR reports VOC2007. Its code takes 1 for the precision at
recall 0, whatever the scores; that is the same wherever the highest score is a positive's.

Shapes: N pictures, C classes, K distinct scores. A class without a positive has no average precision and is
left out of every mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from protocol.errors import UserError

RECALLS = 10
"""Recalls 0 / 10 to 10 / 10."""


class Precisions(NamedTuple):
    """Of one class."""

    eleven_point: float
    area: float


@dataclass(frozen=True, kw_only=True)
class MeanPrecision:
    """Shares of 0 to 1. What is of a class or a group is by eleven points."""

    map_11_point: float
    map_area: float
    worst_class: float
    worst_class_name: str
    by_class: dict[str, float]
    """Classes that the pictures have."""
    worst_group: float | None
    """Of the mean over classes within each group; None where the set has no groups."""
    by_group: dict[str, float]


def average_precision(score_N: Tensor, positive_N: Tensor) -> Precisions:
    """Of the scores of at least one positive (bool). Equal scores enter together."""
    order_N = score_N.argsort(descending=True)
    _, count_K = torch.unique_consecutive(score_N[order_N], return_counts=True)
    last_K = count_K.cumsum(0) - 1
    hits_K = positive_N[order_N].long().cumsum(0)[last_K]
    precision_K = hits_K.double() / (last_K + 1)
    positives = int(hits_K[-1])
    new_K = hits_K.diff(prepend=hits_K.new_zeros(1))
    # In whole numbers: as fractions, 3 of 10 positives would fall short of a recall of 0.1 x 3.
    tops = [precision_K[hits_K * RECALLS >= tenth * positives].max().item() for tenth in range(RECALLS + 1)]
    return Precisions(sum(tops) / len(tops), (precision_K * new_K).sum().item() / positives)


def mean_average_precision(scores_NC: Tensor, positive_NC: Tensor) -> Precisions:
    """The mean over classes (positives as bool). Raises UserError where no picture has a class."""
    return _mean(list(_by_class(scores_NC.cpu(), positive_NC.cpu()).values()))


def measure_precision(
    scores_NC: Tensor, positive_NC: Tensor, classes: Sequence[str], groups: Sequence[str]
) -> MeanPrecision:
    """Of pictures with these classes and, where they are not all empty, groups. Raises UserError where no
    picture has a class."""
    scores_NC, positive_NC = scores_NC.cpu(), positive_NC.cpu()
    found = _by_class(scores_NC, positive_NC)
    mean = _mean(list(found.values()))
    by_group = {}
    for group in sorted(set(groups) - {""}):
        rows = torch.tensor([other == group for other in groups])
        if positive_NC[rows].any():
            by_group[group] = mean_average_precision(scores_NC[rows], positive_NC[rows]).eleven_point
    worst = min(found, key=lambda number: found[number].eleven_point)
    return MeanPrecision(
        map_11_point=mean.eleven_point,
        map_area=mean.area,
        worst_class=found[worst].eleven_point,
        worst_class_name=classes[worst],
        by_class={classes[number]: one.eleven_point for number, one in found.items()},
        worst_group=min(by_group.values()) if by_group else None,
        by_group=by_group,
    )


def _by_class(scores_NC: Tensor, positive_NC: Tensor) -> dict[int, Precisions]:
    """By the number of each class that a picture has."""
    numbers = positive_NC.any(dim=0).nonzero()[:, 0].tolist()
    return {number: average_precision(scores_NC[:, number], positive_NC[:, number]) for number in numbers}


def _mean(found: Sequence[Precisions]) -> Precisions:
    if not found:
        raise UserError(
            "nothing to rank",
            expected="a picture with a class, of every split",
            got="none",
            where="--data",
            mend="check the labels",
        )
    return Precisions(
        sum(one.eleven_point for one in found) / len(found), sum(one.area for one in found) / len(found)
    )
