"""Average precision against its definition, worked out one threshold at a time in fractions."""

from fractions import Fraction

import pytest
import torch

from protocol.errors import UserError
from trainer.evaluation.average_precision import (
    average_precision,
    mean_average_precision,
    measure_precision,
)


def by_definition(scores: list[float], positives: list[bool]) -> tuple[float, float]:
    """Eleven points and area, from precision and recall of `score >= threshold` at every threshold."""
    curve = []
    for threshold in sorted(set(scores), reverse=True):
        chosen = [positive for score, positive in zip(scores, positives, strict=True) if score >= threshold]
        curve.append((Fraction(sum(chosen), len(chosen)), Fraction(sum(chosen), sum(positives))))
    points = [max(precision for precision, recall in curve if recall * 10 >= t) for t in range(11)]
    area, before = Fraction(0), Fraction(0)
    for precision, recall in curve:
        area += (recall - before) * precision
        before = recall
    return float(sum(points) / 11), float(area)


@pytest.mark.parametrize("count", [1, 7, 40, 300])
@pytest.mark.parametrize("levels", [3, 1000])
def test_both_readings_are_those_of_the_definition(count: int, levels: int) -> None:
    """With few levels most scores are equal to others; with many, hardly any."""
    generator = torch.Generator().manual_seed(count + levels)
    for _ in range(10):
        scores = torch.randint(levels, (count,), generator=generator).float()
        positives = torch.rand(count, generator=generator) < 0.3
        positives[torch.randint(count, (1,), generator=generator)] = True
        found = average_precision(scores, positives)
        assert found == pytest.approx(by_definition(scores.tolist(), positives.tolist()), rel=1e-12)


def test_a_ranking_worked_out_by_hand() -> None:
    """Positives at ranks 1 and 3: precision 1 up to a recall of a half, then 2/3; all first is 1."""
    positives = torch.tensor([True, False, True, False])
    found = average_precision(torch.tensor([4.0, 3.0, 2.0, 1.0]), positives)
    assert found.eleven_point == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert found.area == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(torch.tensor([9.0, 1.0, 8.0, 2.0]), positives) == (1.0, 1.0)
    assert average_precision(torch.zeros(4), positives) == (0.5, 0.5)


def test_a_recall_of_three_tenths_is_reached_by_three_of_ten() -> None:
    """Which 0.1 x 3 in floating point is above."""
    ranked = torch.tensor([True] * 3 + [False] * 7 + [True] * 7)
    expected = by_definition([-float(i) for i in range(17)], ranked.tolist())
    assert average_precision(-torch.arange(17.0), ranked) == pytest.approx(expected)
    assert expected[0] == pytest.approx((4 * 1 + 7 * 10 / 17) / 11)


def test_means_leave_out_classes_that_no_picture_has() -> None:
    """Of all pictures and within each group; the worst are named."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(12, 4, generator=generator)
    positives = torch.rand(12, 4, generator=generator) < 0.4
    positives[:, 2] = False
    positives[8:] = False  # of a group of its own, in which nothing can be ranked
    groups = ["a", "b"] * 4 + ["c"] * 4
    found = measure_precision(scores, positives, ["w", "x", "y", "z"], groups)

    def points(rows: list[int]) -> dict[str, float]:
        return {
            name: by_definition(scores[rows, c].tolist(), positives[rows, c].tolist())[0]
            for c, name in enumerate("wxyz")
            if positives[rows, c].any()
        }

    assert found.by_class == pytest.approx(points(list(range(12))))
    assert set(found.by_class) == {"w", "x", "z"}
    assert found.map_11_point == pytest.approx(sum(found.by_class.values()) / 3)
    assert found.worst_class == found.by_class[found.worst_class_name] == min(found.by_class.values())
    for group, first in (("a", 0), ("b", 1)):
        some = points(list(range(first, 8, 2)))
        assert found.by_group[group] == pytest.approx(sum(some.values()) / len(some))
    assert set(found.by_group) == {"a", "b"}
    assert found.worst_group == min(found.by_group.values())
    areas = [by_definition(scores[:, c].tolist(), positives[:, c].tolist())[1] for c in (0, 1, 3)]
    assert found.map_area == pytest.approx(sum(areas) / 3)
    with pytest.raises(UserError, match="nothing to rank"):
        mean_average_precision(scores, torch.zeros(12, 4, dtype=torch.bool))
