"""What a loss over anchors returns, and the cross entropy that all of them share.

Shapes: N anchors (this rank's rows), M candidates (the rows of all ranks).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class LossSums(NamedTuple):
    """Sums over this rank's valid anchors, scalars of one dtype: a mean over all ranks is one all-reduce.

    loss = loss_sum / valid_count and excess = (loss_sum - floor_sum) / valid_count.
    """

    loss_sum: Tensor
    """Cross entropies; carries the gradient."""
    floor_sum: Tensor
    """Logs of the number of positives: the least value loss_sum can take."""
    valid_count: Tensor
    """Anchors that have a positive."""


def cross_entropy_to_positives(
    logits_NM: Tensor, positive_NM: Tensor, left_out_NM: Tensor | None = None
) -> LossSums:
    """Cross entropy between the uniform distribution over each anchor's positives and softmax(logits).

    `positive_NM` is bool; so is `left_out_NM`, the candidates that are not in an anchor's softmax at all. An
    anchor without a positive enters neither the sums nor the count.
    """
    if left_out_NM is not None:
        # The least finite number, not -inf: a lone candidate would make the softmax, and its gradient, NaN.
        logits_NM = logits_NM.masked_fill(left_out_NM, torch.finfo(logits_NM.dtype).min)
    positives_N = positive_NM.sum(dim=1)
    log_share_NM = logits_NM.log_softmax(dim=1)
    loss_N = -log_share_NM.masked_fill(~positive_NM, 0.0).sum(dim=1) / positives_N.clamp(min=1)
    return LossSums(
        loss_sum=loss_N.sum(),
        floor_sum=positives_N.clamp(min=1).to(logits_NM.dtype).log().sum(),
        valid_count=(positives_N > 0).sum().to(logits_NM.dtype),
    )


def is_row(index_N: Tensor, candidates: int) -> Tensor:
    """Bool [N, M]: true where candidate m is the row `index_N[n]` (int64)."""
    index_M = torch.arange(candidates, device=index_N.device)
    return index_N[:, None] == index_M[None, :]
