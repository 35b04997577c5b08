"""One direction of the image-text loss of CLIP and StableRep+, from images to texts or from texts to images.

CLIP (Radford et al. 2021, arXiv:2103.00020, figure 3) is the mean of both directions where every image has a
caption of its own. StableRep+ (Tian et al. 2023, arXiv:2306.00984, section 3.3) is the same cross entropy
where several images share one: a text's target is then uniform over its images. Each distinct caption is one
row, so that a caption that comes twice in a batch is never its own negative.

Shapes: N anchors (this rank's rows of one modality), M candidates (all rows of the other), D dimensions.
"""

import torch
from torch import Tensor

from trainer.losses.similarity import cosine_similarity
from trainer.losses.sums import LossSums, cross_entropy_to_positives


def image_text(
    anchors_ND: Tensor,
    anchor_ids_N: Tensor,
    candidates_MD: Tensor,
    candidate_ids_M: Tensor,
    scale: Tensor,
) -> LossSums:
    """Cross entropy between the uniform distribution over positives and softmax(scale x similarity).

    Positives are the candidates with the anchor's caption id (int64). Features are any floating dtype and are
    L2-normalised here, in float32 at least. `scale` is the inverse temperature, a scalar that may be trained.
    """
    cosine_NM = cosine_similarity(anchors_ND, candidates_MD)
    logits_NM = cosine_NM * scale.to(cosine_NM.dtype)
    return cross_entropy_to_positives(logits_NM, anchor_ids_N[:, None] == candidate_ids_M[None, :])


def first_of_each(ids_N: Tensor) -> Tensor:
    """Ascending rows (int64) at which an id comes for the first time: one for each distinct id."""
    distinct_K, which_N = torch.unique(ids_N, return_inverse=True)
    row_N = torch.arange(len(ids_N), device=ids_N.device)
    first_K = torch.full_like(distinct_K, len(ids_N))
    return first_K.scatter_reduce(0, which_N, row_N, "amin").sort().values
