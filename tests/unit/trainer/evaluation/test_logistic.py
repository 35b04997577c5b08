"""Logistic regression against the conditions of its minimum, worked out in plain loops."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from trainer.evaluation.logistic import L2_SWEEP, choose_l2, fit_logistic, standardise


def rows(count: int, seed: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Three classes around centres of their own, float64 [N, 4]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]], dtype=torch.float64)
    return centres[labels] + noise * torch.randn(count, 4, generator=generator, dtype=torch.float64), labels


@pytest.mark.parametrize("l2", [0.01, 1.0, 30.0])
def test_the_gradient_at_the_minimum_is_zero(l2: float) -> None:
    """The loss is convex, so the point where sum (p - y) x + l2 w and sum (p - y) vanish is the one."""
    problems = [rows(18, seed) for seed in (0, 1)]
    features = torch.stack([x for x, _ in problems])
    labels = torch.stack([y for _, y in problems])
    linear = fit_logistic(features, labels, 3, l2, iterations=1000)
    for e in range(2):
        weight, bias = linear.weight_EFC[e].tolist(), linear.bias_E1C[e, 0].tolist()
        gradient = [[l2 * weight[f][c] for c in range(3)] for f in range(4)]
        of_bias = [0.0] * 3
        for x, y in zip(features[e].tolist(), labels[e].tolist(), strict=True):
            logits = [bias[c] + sum(x[f] * weight[f][c] for f in range(4)) for c in range(3)]
            total = sum(math.exp(value) for value in logits)
            for c in range(3):
                error = math.exp(logits[c]) / total - (c == y)
                of_bias[c] += error
                for f in range(4):
                    gradient[f][c] += error * x[f]
        assert max(abs(value) for row in gradient for value in row) < 1e-4
        assert max(map(abs, of_bias)) < 1e-4


@pytest.mark.parametrize("l2", [0.1, 10.0])
def test_one_class_against_the_rest_is_a_problem_of_its_own(l2: float) -> None:
    """At the minimum sum (sigmoid - y) x + l2 w and sum (sigmoid - y) vanish for each class; a picture may
    have several classes, or none."""
    features, _ = rows(30, 4)
    targets = (torch.rand(30, 3, generator=torch.Generator().manual_seed(5)) < 0.4).double()
    assert set(targets.sum(dim=1).tolist()) >= {0.0, 1.0, 2.0}
    linear = fit_logistic(features[None], targets[None], 3, l2, iterations=1000)
    for c in range(3):
        weight, bias = linear.weight_EFC[0, :, c].tolist(), linear.bias_E1C[0, 0, c].item()
        gradient, of_bias = [l2 * value for value in weight], 0.0
        for x, y in zip(features.tolist(), targets[:, c].tolist(), strict=True):
            error = 1 / (1 + math.exp(-bias - sum(a * b for a, b in zip(x, weight, strict=True)))) - y
            of_bias += error
            gradient = [value + error * a for value, a in zip(gradient, x, strict=True)]
        assert max(map(abs, [*gradient, of_bias])) < 1e-4
    alone = fit_logistic(features[None], targets[None, :, 1:2], 1, l2, iterations=1000)
    torch.testing.assert_close(alone.weight_EFC[..., 0], linear.weight_EFC[..., 1], atol=1e-5, rtol=0)


def test_problems_solved_together_do_not_touch_each_other() -> None:
    """The same weights as alone."""
    (first, labels), (second, _) = rows(18, 0), rows(18, 1)
    together = fit_logistic(torch.stack([first, second]), labels.expand(2, -1), 3, 1.0)
    alone = fit_logistic(second[None], labels[None], 3, 1.0)
    torch.testing.assert_close(together.weight_EFC[1], alone.weight_EFC[0], atol=1e-5, rtol=0)


def test_the_sweep_is_the_papers() -> None:
    """45 values, log-spaced from 1e-6 to 1e5."""
    assert len(L2_SWEEP) == 45
    assert L2_SWEEP[0] == pytest.approx(1e-6)
    assert L2_SWEEP[-1] == pytest.approx(1e5)
    ratios = [b / a for a, b in itertools.pairwise(L2_SWEEP)]
    assert ratios == pytest.approx([10 ** (11 / 44)] * 44)


def test_l2_is_chosen_by_the_score_of_each_value_on_validation() -> None:
    """Against fits from nothing, one a value; the strongest of equals wins."""
    train, validation = rows(24, 2, noise=1.5), rows(60, 3, noise=1.5)
    sweep = (1e-3, 1e-1, 10.0, 1e4)

    def score(scores: Tensor) -> float:
        return (scores.argmax(dim=1) == validation[1]).double().mean().item()

    heard: list[int] = []
    chosen = choose_l2(train, validation, 3, score=score, sweep=sweep, tried=heard.append)
    (x, y), (asked, _) = standardise(train, validation)
    expected = [
        score(fit_logistic(x[None], y[None], 3, l2, iterations=1000).scores(asked[None])[0]) for l2 in sweep
    ]
    assert [value for _, value in chosen.sweep] == pytest.approx(expected)
    assert len(set(expected)) > 1
    assert chosen.l2 == max(l2 for l2, value in zip(sweep, expected, strict=True) if value == max(expected))
    assert heard == [1, 2, 3, 4]


def test_standardising_takes_mean_and_deviation_of_train() -> None:
    """The others are moved by the same amounts; a constant feature stays finite."""
    train, other = torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[2.0, 6.0]])
    (first, _), (second, _) = standardise((train, torch.zeros(2)), (other, torch.zeros(1)))
    assert first.tolist() == [[-1, 0], [1, 0]]
    assert second.tolist() == [[0, 1]]
