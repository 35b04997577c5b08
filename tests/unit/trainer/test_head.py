"""The projection head against plain loops over views, groups and channels."""

import copy

import pytest
import torch
from torch import Tensor, nn

from trainer.head import Head


def normalise_by_loop(x: Tensor, groups: int, views: int) -> Tensor:
    """Batch norm with unit scale: each channel of each view, over the groups, one at a time."""
    out = torch.empty_like(x)
    for view in range(views):
        rows = [group * views + view for group in range(groups)]
        for channel in range(x.shape[1]):
            values = [x[row, channel].item() for row in rows]
            mean = sum(values) / groups
            variance = sum((value - mean) ** 2 for value in values) / groups
            for row, value in zip(rows, values, strict=True):
                out[row, channel] = (value - mean) / (variance + 1e-5) ** 0.5
    return out


def test_statistics_are_taken_over_the_groups_of_one_view() -> None:
    """Rows are ordered group by group; each view index is normalised for itself."""
    groups, views = 5, 3
    head = Head(4, 6, 2, layers=3, views=views).double()
    features = torch.randn(groups * views, 4, dtype=torch.float64)
    x = features
    for linear in head.hidden:
        assert isinstance(linear, nn.Linear)
        x = normalise_by_loop(x @ linear.weight.T, groups, views).clamp(min=0)
    expected = x @ head.out.weight.T + head.out.bias
    torch.testing.assert_close(head(features), expected)


def test_equals_the_head_called_once_a_view() -> None:
    """One pass over all views equals one pass for each, in outputs and in running statistics."""
    views = 4
    together, apart = Head(3, 5, 2, layers=2, views=views), Head(3, 5, 2, layers=2, views=1)
    apart.load_state_dict(copy.deepcopy(together.state_dict()))
    features = torch.randn(6 * views, 3)
    outputs = [apart(features[view::views]) for view in range(views)]
    torch.testing.assert_close(together(features), torch.stack(outputs, dim=1).flatten(0, 1))
    for name, value in together.state_dict().items():
        torch.testing.assert_close(value, apart.state_dict()[name], msg=name)


@pytest.mark.parametrize(("layers", "hidden_layers"), [(1, 0), (2, 1), (3, 2)])
def test_ends_without_norm(layers: int, hidden_layers: int) -> None:
    """Norm and ReLU stand between linear layers only, so outputs take both signs."""
    head = Head(8, 16, 4, layers=layers, views=2)
    assert len(head.hidden) == len(head.norms) == hidden_layers
    output = head(torch.randn(32, 8))
    assert output.shape == (32, 4)
    assert output.min() < 0 < output.max()


def test_weights_depend_on_the_seed_alone() -> None:
    """Building a head neither reads nor moves the global random state."""
    torch.manual_seed(1)
    first = Head(4, 8, 2, layers=3, views=2, seed=5)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    second = Head(4, 8, 2, layers=3, views=2, seed=5)
    other = Head(4, 8, 2, layers=3, views=2, seed=6)
    assert torch.equal(first.out.weight, second.out.weight)
    assert not torch.equal(first.out.weight, other.out.weight)
