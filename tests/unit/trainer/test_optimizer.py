"""Parameter groups and the learning rate schedule."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.optimizer import build_optimizer, learning_rate, set_learning_rate


def test_warmup_is_linear_and_decay_is_half_a_cosine() -> None:
    """Every step's rate is that of the two formulas; it rises to the peak once and falls to 0."""
    rates = [learning_rate(step, 0.4, 10, 50) for step in range(51)]
    for step in range(10):
        assert rates[step] == pytest.approx(0.04 * (step + 1))
    for step in range(10, 51):
        assert rates[step] == pytest.approx(0.2 * (1 + math.cos(math.pi * (step - 10) / 40)))
    assert max(rates) == pytest.approx(0.4)
    assert rates[50] == pytest.approx(0.0)
    assert all(a <= b for a, b in pairwise(rates[:10]))
    assert all(a >= b for a, b in pairwise(rates[10:]))


@pytest.mark.parametrize(("warmup", "steps"), [(0, 5), (5, 5), (9, 5), (0, 1)])
def test_odd_lengths_stay_within_the_peak(warmup: int, steps: int) -> None:
    """No warm-up, or one as long as the run, gives finite rates above 0."""
    rates = [learning_rate(step, 1.0, warmup, steps) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)


def test_vectors_are_not_decayed() -> None:
    """Biases, norms and scales shrink not at all under a zero gradient; matrices and kernels do."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    frozen = nn.Linear(2, 2).requires_grad_(False)
    nn.init.ones_(model[0].bias)  # type: ignore[arg-type]  # Sequential hides that it is a Linear
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = build_optimizer([model, frozen], TrainConfig(weight_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        kept = 1.0 if value.ndim == 1 else 1 - 0.1 * 0.5
        torch.testing.assert_close(value.detach(), before[name] * kept, msg=name)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in model.parameters()}


def test_two_steps_are_adamw_with_the_configured_averages() -> None:
    """A scalar's path equals the update written out (Loshchilov & Hutter 2019) with betas .9 and .98."""
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 2.0)
    optimizer = build_optimizer([weight], TrainConfig())
    value, m, v, rate, decay = 2.0, 0.0, 0.0, 0.01, 0.1
    for step, gradient in enumerate([0.3, -0.7], start=1):
        set_learning_rate(optimizer, rate)
        weight.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        value *= 1 - rate * decay
        m, v = 0.9 * m + 0.1 * gradient, 0.98 * v + 0.02 * gradient**2
        value -= rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.98**step)) ** 0.5 + 1e-8)
        assert weight.weight.item() == pytest.approx(value, rel=1e-6)
