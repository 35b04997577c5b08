"""Batch norm whose statistics are those of the whole batch, however many ranks it is spread over.

    values ─mean, variance of this rank─→ gather_row ─→ mean, variance of all ranks ─→ scale and shift

torch's own SyncBatchNorm needs CUDA. With one rank the layers here compute what torch's do, by torch's code.

Shapes: N images; C channels; R ranks.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.ranks import gather_row, rank_count


class RankBatchNorm(_BatchNorm):
    """Batch norm over every dimension but the second one, in training over all ranks."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [N, C, ...], got {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] of any size beyond -> the same shape and dtype."""
        if not self.training or rank_count() == 1:
            normalised: Tensor = super().forward(input)
            return normalised
        self._check_input_dim(input)
        dims = [dim for dim in range(input.dim()) if dim != 1]
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        mean_C, variance_C, count = moments_over_ranks(values, dims)
        track(self, mean_C, variance_C, count)
        scale_C, shift_C = scale_and_shift(self, mean_C, variance_C)
        shape = [1, -1, *[1] * (input.dim() - 2)]
        return (values * scale_C.view(shape) + shift_C.view(shape)).to(input.dtype)


def moments_over_ranks(values: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance over `dims` and all ranks, with gradient, and how many values each is of.

    Combined as in Chan et al. (1979): the mean of the ranks' variances and the variance of their means, each
    rank weighing as much as it has values. Sums of squares would lose a small variance beside a large mean.
    """
    variance, mean = torch.var_mean(values, dim=dims, correction=0)
    own = mean.new_full((1,), values.numel() / mean.numel())
    rows = gather_row(torch.cat([mean.flatten(), variance.flatten(), own]))
    count = rows[:, -1].detach().sum()
    weights_R1 = rows[:, -1:].detach() / count
    means, variances = rows[:, :-1].chunk(2, dim=1)
    whole_mean = (weights_R1 * means).sum(0)
    whole_variance = (weights_R1 * (variances + (means - whole_mean).square())).sum(0)
    return whole_mean.view_as(mean), whole_variance.view_as(mean), count


def scale_and_shift(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """normalised = value x scale + shift, with the layer's own weight and bias."""
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


@torch.no_grad()
def track(norm: _BatchNorm, mean_C: Tensor, variance_C: Tensor, count: Tensor) -> None:
    """Takes the statistics of one batch into the running ones, as torch does: the variance unbiased."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    weight = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean_C.to(norm.running_mean.dtype), weight)
    unbiased_C = variance_C * (count / (count - 1).clamp(min=1))
    norm.running_var.lerp_(unbiased_C.to(norm.running_var.dtype), weight)


def span_ranks(module: nn.Module) -> None:
    """Puts a `RankBatchNorm` in the place of every batch norm below `module`, with its tensors and names."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                setattr(parent, name, _spanning(child))


def _spanning(norm: _BatchNorm) -> RankBatchNorm:
    spanning = RankBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    spanning.weight, spanning.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(spanning, name, buffer)
    return spanning.train(norm.training)
