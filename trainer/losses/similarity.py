"""Cosine similarity in float32 at least, whatever the autocast.

Shapes: N anchors, M candidates, D feature dimensions.
"""

import torch
from torch import Tensor
from torch.nn import functional


def cosine_similarity(anchors_ND: Tensor, candidates_MD: Tensor) -> Tensor:
    """[N, M] of features of any floating dtype; half precision is raised to float32 and then normalised."""
    dtype = torch.promote_types(anchors_ND.dtype, torch.float32)
    with torch.autocast(anchors_ND.device.type, enabled=False):
        anchors_ND = functional.normalize(anchors_ND.to(dtype), dim=1)
        candidates_MD = functional.normalize(candidates_MD.to(dtype), dim=1)
        return anchors_ND @ candidates_MD.T
