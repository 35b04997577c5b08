"""From a classifier's scores to what is reported of them, by the kind of labels that a set has.

Shapes: N pictures, C classes.
"""

from collections.abc import Sequence

from torch import Tensor

from trainer.evaluation.accuracy import Accuracy, measure_accuracy
from trainer.evaluation.average_precision import (
    MeanPrecision,
    mean_average_precision,
    measure_precision,
)
from trainer.evaluation.image_set import Split

Measure = Accuracy | MeanPrecision


def measure(scores_NC: Tensor, split: Split, classes: Sequence[str]) -> Measure:
    """Accuracy of the highest score, or average precision where pictures have several classes. Raises
    UserError."""
    if split.classes_NC is not None:
        return measure_precision(scores_NC, split.classes_NC, classes, split.groups)
    return measure_accuracy(scores_NC.argmax(dim=1), split.labels_N, classes, split.groups)


def first_score(scores_NC: Tensor, targets: Tensor) -> float:
    """The first of what `measure` reports, of labels [N] or classes [N, C]. Raises UserError."""
    if targets.dim() == 2:
        return mean_average_precision(scores_NC, targets > 0).eleven_point
    return (scores_NC.argmax(dim=1) == targets).double().mean().item()
