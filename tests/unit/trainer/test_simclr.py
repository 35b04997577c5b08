"""NT-Xent against a plain loop over SimCLR's first equation."""

import math

import pytest
import torch
from torch import Tensor

from trainer.losses.simclr import simclr
from trainer.losses.sums import LossSums


def loop_over_formula(features: list[list[float]], temperature: float) -> list[float]:
    """l(i, j) of arXiv:2002.05709 for every i with j its other augmentation, in Python's 64-bit floats."""
    unit = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in features]

    def similarity(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(unit[i], unit[j], strict=True)) / temperature

    losses = []
    for image in range(len(unit) // 2):
        for i, j in ((2 * image, 2 * image + 1), (2 * image + 1, 2 * image)):
            below = sum(math.exp(similarity(i, k)) for k in range(len(unit)) if k != i)
            losses.append(-math.log(math.exp(similarity(i, j)) / below))
    return losses


def features_of(count: int, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def single_rank(features: Tensor, temperature: float) -> LossSums:
    return simclr(features, features, torch.arange(len(features)), temperature)


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_equals_the_loop(images: int, temperature: float) -> None:
    """Loss and count are the formula's; the floor is 0, since one positive can have all of the share."""
    features = features_of(2 * images)
    result = single_rank(features, temperature)
    expected = sum(loop_over_formula(features.tolist(), temperature))
    assert result.loss_sum.item() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    assert result.floor_sum.item() == 0
    assert result.valid_count.item() == 2 * images


def test_gradient_equals_finite_differences_of_the_loop() -> None:
    """The gradient is the formula's."""
    step, features = 1e-6, features_of(6, dim=3).requires_grad_()
    single_rank(features, 0.2).loss_sum.backward()
    assert features.grad is not None
    rows = features.detach().tolist()
    for i in range(6):
        for d in range(3):
            higher, lower = [list(row) for row in rows], [list(row) for row in rows]
            higher[i][d] += step
            lower[i][d] -= step
            rise = sum(loop_over_formula(higher, 0.2)) - sum(loop_over_formula(lower, 0.2))
            assert features.grad[i, d].item() == pytest.approx(rise / (2 * step), rel=1e-5, abs=1e-7)


def test_half_precision_features_are_compared_in_float32() -> None:
    """Under autocast and from bfloat16 features the similarities are still float32's."""
    features = features_of(8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = single_rank(features, 0.05)
    assert result.loss_sum.dtype == torch.float32
    expected = sum(loop_over_formula(features.double().tolist(), 0.05))
    assert result.loss_sum.item() == pytest.approx(expected, rel=1e-5)
