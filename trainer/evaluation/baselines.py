"""What needs no training: features that an encoder has to beat.

Shapes: N images of H x W pixels, uint8; F features, float32, compared by cosine.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_SIDE = 32
_BINS = 8


def pixels(images_NHWC: NDArray[np.uint8]) -> Tensor:
    """The image itself at 32 x 32, less its mean, so that the cosine is the correlation of two images."""
    image_NCHW = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float()
    small_NF = functional.interpolate(image_NCHW, (_SIDE, _SIDE), mode="area").flatten(1)
    return small_NF - small_NF.mean(dim=1, keepdim=True)


def histogram(images_NHWC: NDArray[np.uint8]) -> Tensor:
    """Square roots of the shares of 8 x 8 x 8 RGB cells: the cosine is the Bhattacharyya coefficient."""
    count = len(images_NHWC)
    cell_NHWC = (images_NHWC // (256 // _BINS)).astype(np.int64)
    cell_NP = (cell_NHWC @ np.array([_BINS * _BINS, _BINS, 1])).reshape(count, -1)
    cells = _BINS**3
    flat = (cell_NP + np.arange(count)[:, None] * cells).ravel()
    share_NF = np.bincount(flat, minlength=count * cells).reshape(count, cells) / cell_NP.shape[1]
    return torch.from_numpy(np.sqrt(share_NF, dtype=np.float32))
