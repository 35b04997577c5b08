"""What hyperparameters are chosen by is what is reported."""

import pytest
import torch

from trainer.evaluation.accuracy import Accuracy
from trainer.evaluation.average_precision import MeanPrecision
from trainer.evaluation.image_set import Split
from trainer.evaluation.measure import ChosenBy, choosing_score, measure


def split(labels: list[int], classes: torch.Tensor | None = None) -> Split:
    return Split(
        name="test",
        read=lambda index: (_ for _ in ()).throw(AssertionError("no picture is needed")),
        labels_N=torch.tensor(labels),
        captions=[()] * len(labels),
        groups=[""] * len(labels),
        digest="",
        classes_NC=classes,
    )


def test_accuracy_and_its_mean_over_classes() -> None:
    """Of 6 pictures of a class and 2 of another, 5 and 1 are right; the third class has none."""
    labels = [0] * 6 + [2] * 2
    predicted = torch.tensor([0, 0, 0, 0, 0, 2, 2, 1])
    scores = torch.nn.functional.one_hot(predicted, 4).float()
    found = measure(scores, split(labels), ["a", "b", "c", "d"])
    assert isinstance(found, Accuracy)
    by_accuracy = choosing_score(scores, torch.tensor(labels), "accuracy")
    by_class = choosing_score(scores, torch.tensor(labels), "mean_class")
    assert by_accuracy == found.accuracy == pytest.approx(6 / 8)
    assert by_class == pytest.approx(found.mean_class)
    assert by_class == pytest.approx((5 / 6 + 1 / 2) / 2)


@pytest.mark.parametrize("chosen_by", ["accuracy", "mean_class"])
def test_average_precision_where_pictures_have_several_classes(chosen_by: ChosenBy) -> None:
    """The first reported score, whatever else is asked."""
    generator = torch.Generator().manual_seed(1)
    scores, marks = torch.randn(20, 3, generator=generator), torch.rand(20, 3, generator=generator) < 0.3
    found = measure(scores, split([-1] * 20, marks), ["a", "b", "c"])
    assert isinstance(found, MeanPrecision)
    assert choosing_score(scores, marks.float(), chosen_by) == found.map_11_point
