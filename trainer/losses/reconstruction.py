"""The masked autoencoder's loss (He et al. 2021, arXiv:2111.06377, section 3): error of hidden patches.

Shapes: N images, P patches, D pixel values of a patch.
"""

import torch
from torch import Tensor

_VARIANCE_FLOOR = 1e-6


def masked_error(predicted_NPD: Tensor, patches_NPD: Tensor, masked_NP: Tensor, *, normalise: bool) -> Tensor:
    """[N] mean squared error over the values of an image's masked patches, in float32 at least.

    `masked_NP` is 1 where a patch was hidden, else 0; each image has at least one. `normalise` first takes
    each patch to zero mean and unit variance (unbiased), the paper's better target.
    """
    with torch.autocast(predicted_NPD.device.type, enabled=False):
        dtype = torch.promote_types(predicted_NPD.dtype, torch.float32)
        target_NPD = patches_NPD.to(dtype)
        if normalise:
            mean_NP1 = target_NPD.mean(dim=-1, keepdim=True)
            variance_NP1 = target_NPD.var(dim=-1, keepdim=True)
            target_NPD = (target_NPD - mean_NP1) / (variance_NP1 + _VARIANCE_FLOOR).sqrt()
        error_NP = (predicted_NPD.to(dtype) - target_NPD).square().mean(dim=-1)
        masked_NP = masked_NP.to(dtype)
        return (error_NP * masked_NP).sum(dim=1) / masked_NP.sum(dim=1)
