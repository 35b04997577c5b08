"""StableRep's multi-positive contrastive loss (Tian et al. 2023, arXiv:2306.00984, equations 2 to 4).

Positives are the other images of the same caption id, looked up afresh for every batch. The authors' code
keeps the mask of an earlier batch of the same size, which is wrong as soon as groups differ in number, size
or order.

Shapes: N anchors (this rank's images), M candidates (the images of all ranks), D feature dimensions.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class MultiPositive(NamedTuple):
    """Sums over this rank's valid anchors, scalars of one dtype: a mean over all ranks is one all-reduce.

    loss = loss_sum / valid_count and excess = (loss_sum - floor_sum) / valid_count.
    """

    loss_sum: Tensor
    """Cross entropies; carries the gradient."""
    floor_sum: Tensor
    """Logs of the number of positives: the least value loss_sum can take."""
    valid_count: Tensor
    """Anchors that have a positive."""


def multi_positive(
    anchors_ND: Tensor,
    anchor_ids_N: Tensor,
    candidates_MD: Tensor,
    candidate_ids_M: Tensor,
    self_index_N: Tensor,
    temperature: float,
) -> MultiPositive:
    """Cross entropy between the uniform distribution over an anchor's positives and softmax(similarity / T).

    Features are any floating dtype and are L2-normalised here, in float32 at least whatever the autocast.
    Ids are int64. `self_index_N` (int64) is each anchor's own row among the candidates; it is left out of its
    positives and of its softmax. An anchor without a positive enters neither the sums nor the count.
    """
    with torch.autocast(anchors_ND.device.type, enabled=False):
        dtype = torch.promote_types(anchors_ND.dtype, torch.float32)
        anchors_ND = functional.normalize(anchors_ND.to(dtype), dim=1)
        candidates_MD = functional.normalize(candidates_MD.to(dtype), dim=1)
        logits_NM = anchors_ND @ candidates_MD.T / temperature

    index_M = torch.arange(len(candidate_ids_M), device=self_index_N.device)
    itself_NM = self_index_N[:, None] == index_M[None, :]
    positive_NM = (anchor_ids_N[:, None] == candidate_ids_M[None, :]) & ~itself_NM
    positives_N = positive_NM.sum(dim=1)

    # The least finite number, not -inf: a lone candidate would make the softmax, and its gradient, NaN.
    log_share_NM = logits_NM.masked_fill(itself_NM, torch.finfo(dtype).min).log_softmax(dim=1)
    loss_N = -log_share_NM.masked_fill(~positive_NM, 0.0).sum(dim=1) / positives_N.clamp(min=1)
    return MultiPositive(
        loss_sum=loss_N.sum(),
        floor_sum=positives_N.clamp(min=1).to(dtype).log().sum(),
        valid_count=(positives_N > 0).sum().to(dtype),
    )


def single_rank(features_ND: Tensor, ids_N: Tensor, temperature: float) -> MultiPositive:
    """The loss where one rank holds the whole batch: every image is an anchor and a candidate."""
    index_N = torch.arange(len(ids_N), device=ids_N.device)
    return multi_positive(features_ND, ids_N, features_ND, ids_N, index_N, temperature)
