"""StableRep's projection head: linear layers with batch norm and ReLU between them, no norm at the end.

Shapes: N = G groups x V views, ordered group by group; F encoder features, H hidden, D output dimensions.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.batch_norm import moments_over_ranks, scale_and_shift, track
from trainer.ranks import rank_count


class ViewBatchNorm(nn.BatchNorm1d):
    """Batch norm whose statistics are taken over the groups of one view index at a time, those of all ranks.

    Statistics over a whole batch would let the views of a caption see each other. Scale, shift and running
    statistics are shared by the views, as where one batch norm is called once a view.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[G, V, H] -> [G, V, H]; in training G must be 2 or more over all ranks."""
        if self.training and rank_count() > 1:
            return self._over_ranks(input)
        return torch.stack(
            [super(ViewBatchNorm, self).forward(view_GH) for view_GH in input.unbind(1)], dim=1
        )

    def _over_ranks(self, input_GVH: Tensor) -> Tensor:
        values_GVH = input_GVH.to(torch.promote_types(input_GVH.dtype, torch.float32))
        mean_VH, variance_VH, groups = moments_over_ranks(values_GVH, [0])
        for mean_H, variance_H in zip(mean_VH.unbind(), variance_VH.unbind(), strict=True):
            track(self, mean_H, variance_H, groups)
        scale_VH, shift_VH = scale_and_shift(self, mean_VH, variance_VH)
        return (values_GVH * scale_VH + shift_VH).to(input_GVH.dtype)


class Head(nn.Module):
    """`layers` linear layers: F -> hidden -> ... -> out. Weights depend on `seed` alone."""

    def __init__(self, dim: int, hidden: int, out: int, layers: int, views: int, *, seed: int = 0) -> None:
        super().__init__()
        self.views = views
        widths = [dim] + [hidden] * (layers - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # The batch norm that follows takes away any bias.
            self.hidden = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
            self.out = nn.Linear(widths[-1], out)
        self.norms = nn.ModuleList(ViewBatchNorm(hidden) for _ in self.hidden)

    def forward(self, features_NF: Tensor) -> Tensor:
        """[N, F] -> [N, D]; in training N must be two groups or more over all ranks."""
        x = features_NF
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x_GVH = linear(x).unflatten(0, (-1, self.views))
            x = norm(x_GVH).relu().flatten(0, 1)
        projected_ND: Tensor = self.out(x)
        return projected_ND
