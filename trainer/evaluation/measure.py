"""From a classifier's scores to what is reported of them, by the kind of labels that a set has.

Shapes: N pictures, C classes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from trainer.evaluation.accuracy import Accuracy, measure_accuracy
from trainer.evaluation.average_precision import (
    MeanPrecision,
    mean_average_precision,
    measure_precision,
)
from trainer.evaluation.image_set import Split

Measure = Accuracy | MeanPrecision
ChosenBy = Literal["accuracy", "mean_class"]


def measure(scores_NC: Tensor, split: Split, classes: Sequence[str]) -> Measure:
    """Accuracy of the highest score, or average precision where pictures have several classes. Raises
    UserError."""
    if split.classes_NC is not None:
        return measure_precision(scores_NC, split.classes_NC, classes, split.groups)
    return measure_accuracy(scores_NC.argmax(dim=1), split.labels_N, classes, split.groups)


def choosing_score(scores_NC: Tensor, targets: Tensor, chosen_by: ChosenBy) -> float:
    """What a hyperparameter is chosen by: of labels [N] the accuracy of `measure` or its mean over classes,
    of classes [N, C] the mean average precision by eleven points. Raises UserError."""
    if targets.dim() == 2:
        return mean_average_precision(scores_NC, targets > 0).eleven_point
    right_N = (scores_NC.argmax(dim=1) == targets).double()
    if chosen_by == "accuracy":
        return right_N.mean().item()
    count_C = torch.bincount(targets)
    right_C = torch.bincount(targets, weights=right_N)
    return (right_C[count_C > 0] / count_C[count_C > 0]).mean().item()
