"""StableRep's multi-positive contrastive loss (Tian et al. 2023, arXiv:2306.00984, equations 2 to 4).

Positives are the other images of the same id, looked up afresh for every batch. The authors' code keeps the
mask of an earlier batch of the same size, which is wrong as soon as groups differ in number, size or order.

With caption ids it is StableRep. With class ids it is SupCon's L_out (Khosla et al. 2020, arXiv:2004.11362,
equation 2), term for term: -1/|P(i)| times the sum over positives of the log of the softmax over all others.

Shapes: N anchors (this rank's images), M candidates (the images of all ranks), D feature dimensions.
"""

import torch
from torch import Tensor

from trainer.losses.similarity import cosine_similarity
from trainer.losses.sums import LossSums, cross_entropy_to_positives, is_row


def multi_positive(
    anchors_ND: Tensor,
    anchor_ids_N: Tensor,
    candidates_MD: Tensor,
    candidate_ids_M: Tensor,
    self_index_N: Tensor,
    temperature: float,
) -> LossSums:
    """Cross entropy between the uniform distribution over an anchor's positives and softmax(similarity / T).

    Features are any floating dtype and are L2-normalised here, in float32 at least whatever the autocast.
    Ids are int64. `self_index_N` (int64) is each anchor's own row among the candidates; it is left out of its
    positives and of its softmax. An anchor without a positive enters neither the sums nor the count.
    """
    logits_NM = cosine_similarity(anchors_ND, candidates_MD) / temperature
    itself_NM = is_row(self_index_N, len(candidate_ids_M))
    positive_NM = (anchor_ids_N[:, None] == candidate_ids_M[None, :]) & ~itself_NM
    return cross_entropy_to_positives(logits_NM, positive_NM, left_out_NM=itself_NM)


def single_rank(features_ND: Tensor, ids_N: Tensor, temperature: float) -> LossSums:
    """The loss where one rank holds the whole batch: every image is an anchor and a candidate."""
    index_N = torch.arange(len(ids_N), device=ids_N.device)
    return multi_positive(features_ND, ids_N, features_ND, ids_N, index_N, temperature)
