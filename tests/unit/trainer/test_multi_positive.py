"""The multi-positive loss against a plain loop over the paper's formula."""

import math

import pytest
import torch
from torch import Tensor

from trainer.losses.multi_positive import multi_positive, single_rank
from trainer.losses.sums import LossSums


def loop_over_formula(
    features: list[list[float]], ids: list[int], temperature: float
) -> tuple[float, float, int]:
    """Equations 2 to 4 of arXiv:2306.00984, one scalar at a time, in Python's 64-bit floats."""
    unit = [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in features]
    loss_sum = floor_sum = 0.0
    count = 0
    for i, anchor in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        exps = {
            j: math.exp(sum(a * b for a, b in zip(anchor, unit[j], strict=True)) / temperature)
            for j in others
        }
        matches = [j for j in others if ids[j] == ids[i]]
        if not matches:
            continue
        q = {j: exps[j] / sum(exps.values()) for j in others}
        p = {j: (1 / len(matches) if j in matches else 0.0) for j in others}
        loss_sum += -sum(p[j] * math.log(q[j]) for j in others)
        floor_sum += -sum(p[j] * math.log(p[j]) for j in matches)
        count += 1
    return loss_sum, floor_sum, count


BATCHES = {
    "even groups": [7, 7, 7, 8, 8, 8, 9, 9, 9],
    "a caption in two groups": [5, 5, 6, 6, 5, 5, 2, 2],
    "uneven groups and singletons": [1, 2, 2, 2, 2, 3, 4, 4, 1 << 62, (1 << 62) + 1],
    "one caption only": [3, 3, 3, 3],
}


def features_of(count: int, seed: int = 0, dim: int = 5) -> Tensor:
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ids", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_equals_the_loop(ids: list[int], temperature: float) -> None:
    """Loss, floor and count are those of the formula, whatever the groups look like."""
    features = features_of(len(ids))
    result = single_rank(features, torch.tensor(ids), temperature)
    loss, floor, count = loop_over_formula(features.tolist(), ids, temperature)
    assert result.loss_sum.item() == pytest.approx(loss, rel=1e-12)
    assert result.floor_sum.item() == pytest.approx(floor, rel=1e-12)
    assert result.valid_count.item() == count


def test_ids_that_differ_in_the_last_of_63_bits_are_different_captions() -> None:
    """Ids are compared as integers: in floating point these two would be one."""
    ids = [(1 << 62), (1 << 62) + 1, (1 << 62) + 1]
    result = single_rank(features_of(3), torch.tensor(ids), 0.1)
    assert result.valid_count.item() == 2


def test_consecutive_batches_of_one_size_do_not_share_positives() -> None:
    """Nothing is remembered: a second batch of equal size, grouped otherwise, gets its own positives."""
    first, second = [1, 1, 2, 2, 3, 3], [1, 2, 3, 1, 2, 3]
    features = features_of(6)
    single_rank(features, torch.tensor(first), 0.1)
    again = single_rank(features, torch.tensor(second), 0.1)
    assert again.loss_sum.item() == pytest.approx(
        loop_over_formula(features.tolist(), second, 0.1)[0], rel=1e-12
    )


def test_gradient_equals_finite_differences_of_the_loop() -> None:
    """The gradient is the formula's, for a batch with repeats and a singleton."""
    ids, temperature, step = [4, 4, 9, 6, 6, 4], 0.2, 1e-6
    features = features_of(6, dim=3).requires_grad_()
    single_rank(features, torch.tensor(ids), temperature).loss_sum.backward()
    assert features.grad is not None
    rows = features.detach().tolist()
    for i in range(6):
        for d in range(3):
            higher, lower = [list(row) for row in rows], [list(row) for row in rows]
            higher[i][d] += step
            lower[i][d] -= step
            rise = (
                loop_over_formula(higher, ids, temperature)[0] - loop_over_formula(lower, ids, temperature)[0]
            )
            assert features.grad[i, d].item() == pytest.approx(rise / (2 * step), rel=1e-5, abs=1e-7)


def test_ranks_add_up_to_the_whole_batch() -> None:
    """Sums over two ranks, uneven in size, equal the one-rank result; so do the gradients."""
    ids = torch.tensor([1, 1, 2, 2, 1, 3, 3, 4])
    whole = features_of(8).requires_grad_()
    expected = single_rank(whole, ids, 0.1)
    expected.loss_sum.backward()
    parts = features_of(8).requires_grad_()
    results: list[LossSums] = []
    for rows in (torch.arange(0, 5), torch.arange(5, 8)):
        results.append(multi_positive(parts[rows], ids[rows], parts, ids, rows, 0.1))
    total = [sum(values) for values in zip(*results, strict=True)]
    torch.testing.assert_close(torch.stack(total), torch.stack(list(expected)))
    total[0].backward()
    torch.testing.assert_close(parts.grad, whole.grad)


def test_half_precision_features_are_compared_in_float32() -> None:
    """Under autocast and from bfloat16 features the similarities are still float32's."""
    features = features_of(8).bfloat16()
    ids = torch.tensor([1, 1, 2, 2, 3, 3, 4, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = single_rank(features, ids, 0.05)
    assert result.loss_sum.dtype == torch.float32
    expected = loop_over_formula(features.double().tolist(), ids.tolist(), 0.05)[0]
    assert result.loss_sum.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("ids", [[5], [5, 6, 7]])
def test_a_batch_without_any_positive_is_zero_with_zero_gradient(ids: list[int]) -> None:
    """No anchor is valid, so nothing is summed and no NaN reaches the weights, even with one image alone."""
    features = features_of(len(ids)).float().requires_grad_()
    result = single_rank(features, torch.tensor(ids), 0.1)
    result.loss_sum.backward()
    assert [value.item() for value in result] == [0.0, 0.0, 0.0]
    assert features.grad is not None
    assert features.grad.abs().max().item() == 0.0


def test_the_floor_is_reached_by_perfect_features() -> None:
    """Views that coincide, captions that are orthogonal, a small temperature: the excess is nothing."""
    features = torch.eye(4).repeat_interleave(3, dim=0)
    result = single_rank(features, torch.arange(4).repeat_interleave(3), 0.02)
    assert (result.loss_sum - result.floor_sum).item() == pytest.approx(0.0, abs=1e-4)
    assert result.floor_sum.item() == pytest.approx(12 * math.log(2))


def test_with_class_ids_it_is_supcons_outer_loss() -> None:
    """Equation 2 of arXiv:2004.11362: -1/|P(i)| x sum over p of log(exp(z_i z_p / T) / sum over A(i))."""
    classes, temperature = [0, 1, 0, 0, 2, 1, 0], 0.1
    features = features_of(7)
    unit = [[v / math.sqrt(sum(x * x for x in row)) for v in row] for row in features.tolist()]
    expected = 0.0
    for i in range(7):
        dots = {a: sum(x * y for x, y in zip(unit[i], unit[a], strict=True)) for a in range(7) if a != i}
        below = sum(math.exp(dot / temperature) for dot in dots.values())
        positives = [p for p in dots if classes[p] == classes[i]]
        if positives:
            logs = sum(math.log(math.exp(dots[p] / temperature) / below) for p in positives)
            expected += -logs / len(positives)
    result = single_rank(features, torch.tensor(classes), temperature)
    assert result.loss_sum.item() == pytest.approx(expected, rel=1e-12)
    assert result.valid_count.item() == 6, "the only image of its class has no positive"
