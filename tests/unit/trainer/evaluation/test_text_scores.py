"""Zero-shot classes, recall between images and texts, and accuracies by class and group, in plain loops."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trainer.evaluation.accuracy import measure_accuracy
from trainer.evaluation.image_text import image_text_recall, zero_shot_classes

GENERATOR = torch.Generator().manual_seed(0)
VECTORS: dict[str, Tensor] = {}


def texts(captions: Sequence[str]) -> Tensor:
    """A random direction for each text, always the same."""
    for text in captions:
        VECTORS.setdefault(text, functional.normalize(torch.randn(5, generator=GENERATOR), dim=0))
    return torch.stack([VECTORS[text] for text in captions])


def test_a_class_is_the_unit_mean_of_its_prompts() -> None:
    """Of every template, filled with the class's name."""
    got = zero_shot_classes(["cat", "dog"], ["a {}.", "{} again {}"], texts)
    for row, name in zip(got, ("cat", "dog"), strict=True):
        mean = (VECTORS[f"a {name}."] + VECTORS[f"{name} again {name}"]) / 2
        torch.testing.assert_close(row, mean / mean.norm())


def test_recall_both_ways_against_loops() -> None:
    """Several captions an image, captions that images share, and an image without any."""
    captions = [("a", "b"), ("a",), (), ("c",), *((f"t{i}",) for i in range(16))]
    images = functional.normalize(torch.randn(len(captions), 5, generator=GENERATOR), dim=1)
    got = image_text_recall(images, captions, texts)
    distinct = ["a", "b", "c", *(f"t{i}" for i in range(16))]
    for k in (1, 5, 10):
        hits = []
        for image, own in zip(images, captions, strict=True):
            if own:
                ranked = sorted(distinct, key=lambda text: -float(image @ VECTORS[text]))
                hits.append(bool(set(ranked[:k]) & set(own)))
        assert got[f"image_to_text_recall_at_{k}"] == pytest.approx(sum(hits) / len(hits))
        hits = []
        for text in distinct:
            order = sorted(range(len(images)), key=lambda row: -float(images[row] @ VECTORS[text]))
            hits.append(any(text in captions[row] for row in order[:k]))
        assert got[f"text_to_image_recall_at_{k}"] == pytest.approx(sum(hits) / len(hits))
    assert 0 < got["image_to_text_recall_at_5"] < 1


def test_accuracies_by_class_and_group() -> None:
    """The mean over classes differs from the mean over pictures; the worst are named."""
    predicted, labels = torch.tensor([0, 0, 0, 1, 0, 2]), torch.tensor([0, 0, 0, 0, 1, 2])
    found = measure_accuracy(predicted, labels, ["a", "b", "c", "unused"], ["x", "x", "y", "y", "y", "x"])
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.by_class == {"a": 0.75, "b": 0.0, "c": 1.0}
    assert found.mean_class == pytest.approx(1.75 / 3)
    assert (found.worst_class, found.worst_class_name) == (0.0, "b")
    assert found.by_group == pytest.approx({"x": 1.0, "y": 1 / 3})
    assert found.worst_group == pytest.approx(1 / 3)
    assert measure_accuracy(predicted, labels, ["a", "b", "c"], [""] * 6).worst_group is None
