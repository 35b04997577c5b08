"""SimCLR's loss of two augmentations an image, NT-Xent (Chen et al. 2020, arXiv:2002.05709, equation 1).

An image's one positive is its other augmentation; every other row of the batch is a negative, another image
of the same caption among them.

Shapes: N anchors (this rank's rows, two an image), M candidates (the rows of all ranks), D dimensions.
"""

import torch
from torch import Tensor

from trainer.losses.similarity import cosine_similarity
from trainer.losses.sums import LossSums, cross_entropy_to_positives, is_row


def simclr(anchors_ND: Tensor, candidates_MD: Tensor, self_index_N: Tensor, temperature: float) -> LossSums:
    """-log of the share of an anchor's other augmentation in softmax(similarity / T) over all other rows.

    Candidates 2k and 2k + 1 are the augmentations of one image. Features are any floating dtype and are
    L2-normalised here, in float32 at least. `self_index_N` (int64) is each anchor's own row among them.
    """
    logits_NM = cosine_similarity(anchors_ND, candidates_MD) / temperature
    itself_NM = is_row(self_index_N, len(candidates_MD))
    other_augmentation_NM = is_row(torch.bitwise_xor(self_index_N, 1), len(candidates_MD))
    return cross_entropy_to_positives(logits_NM, other_augmentation_NM, left_out_NM=itself_NM)
