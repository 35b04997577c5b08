"""From what a model draws to the bytes that are sent."""

import torch
from torch import Tensor
from torch.nn import functional


def to_pixels(unit_NCHW: Tensor, size: int) -> Tensor:
    """float images in [0, 1], [N, 3, H, W] -> uint8 [N, size, size, 3] on the same device.

    Larger ones are scaled down by a bicubic filter as wide as the pixels that it makes (antialiasing, as
    Pillow does it), in float32, and rounded once.
    """
    unit_NCHW = unit_NCHW.float()
    if unit_NCHW.shape[-1] != size:
        scaled_NCHW = functional.interpolate(unit_NCHW, (size, size), mode="bicubic", antialias=True)
        unit_NCHW = scaled_NCHW.clamp(0, 1)
    return (unit_NCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
