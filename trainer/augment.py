"""StableRep's augmentation of a batch on its device, other parameters for every image.

    keys ─draw_parameters→ boxes, factors ─→ rows_NYH, columns_NXW, colour_N34
    images_NHWC ───── rows · image · columns ─→ crops ── colour ─→ clamp to 0..1 ─→ normalise ─→ images_NCYX

Downsampling, crop, resize, blur and flip are linear and separable, so each image has one matrix for its
rows and one for its columns; colour operations are one affine 3x4 matrix an image. This differs from
torchvision's sequence in three ways: values are clamped once at the end instead of after each colour
operation; hue is a rotation of the chroma plane that keeps luma, instead of a shift of HSV's angle; the
blur, which commutes with affine colour, comes before the clamp.

Shapes: N images, source H x W, output Y x X (both crop_size), C = 3 channels, O offsets of the blur.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.augment_config import AugmentConfig
from trainer.augment_parameters import AugmentParameters, Key, draw_parameters

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
AT_ONCE = 512
"""Images: what lies between source and crop takes several times the memory of either."""
LUMA = (0.299, 0.587, 0.114)
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def normalise(images_NHWC: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] with ImageNet's mean and deviation: an encoder's input."""
    mean = torch.tensor(IMAGENET_MEAN, device=images_NHWC.device)
    std = torch.tensor(IMAGENET_STD, device=images_NHWC.device)
    return ((images_NHWC.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


class Augment:
    """Augments uint8 images; the pixels of an image depend on the image and its key only."""

    def __init__(self, config: AugmentConfig, device: torch.device | str) -> None:
        self.config = config
        self.device = torch.device(device)
        self._mean_C11 = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
        self._std_C11 = torch.tensor(IMAGENET_STD, device=device)[:, None, None]

    def __call__(self, images_NHWC: Tensor | NDArray[np.uint8], keys: Sequence[Key]) -> Tensor:
        """uint8 [N, H, W, 3] and N keys (run seed, group id, view, use) -> float32 [N, 3, Y, X]."""
        images = torch.as_tensor(images_NHWC).to(self.device, non_blocking=True)
        parameters = draw_parameters(self.config, keys, images.shape[1], images.shape[2])
        if len(images) <= AT_ONCE:
            return self.apply(images, parameters)
        size = self.config.crop_size
        crops_NCYX = torch.empty((len(images), 3, size, size), device=self.device)
        for start in range(0, len(images), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            crops_NCYX[part] = self.apply(
                images[part], AugmentParameters._make(rows[part] for rows in parameters)
            )
        return crops_NCYX

    def apply(self, images_NHWC: Tensor, parameters: AugmentParameters) -> Tensor:
        """The same with the parameters given."""
        n, height, width, _ = images_NHWC.shape
        size = self.config.crop_size
        box_N4, flip_N, factors_N4, order_N4, grayscale_N, sigma_N, _ = (
            torch.as_tensor(rows, device=self.device) for rows in parameters
        )
        source_NCHW = images_NHWC.permute(0, 3, 1, 2).to(torch.float32)
        rows_NYH = resize_matrix(box_N4[:, 0], box_N4[:, 2], height, size)
        columns_NXW = resize_matrix(box_N4[:, 1], box_N4[:, 3], width, size)
        for share in sorted({float(share) for share in parameters.coarse_N if share < 1}):
            coarse_N = torch.as_tensor(parameters.coarse_N == share, device=self.device)
            rows_NYH[coarse_N] @= coarsening_matrix(height, share, self.device)
            columns_NXW[coarse_N] @= coarsening_matrix(width, share, self.device)
        mean_NC = torch.einsum("nh,nchw,nw->nc", rows_NYH.mean(1), source_NCHW, columns_NXW.mean(1)) / 255
        colour_N34 = colour_matrix(factors_N4.float(), order_N4, grayscale_N, mean_NC)
        # Weighing the source's channels by the matrix (and 1/255) leaves only the offsets to add at the end.
        mixed = torch.bmm(colour_N34[:, :, :3] / 255, source_NCHW.flatten(2)).view(n, 3 * height, width)

        weights_NO = blur_weights(sigma_N.float(), _blur_radius(self.config))
        rows_NYH = blur_matrix(rows_NYH, weights_NO)
        columns_NXW = blur_matrix(columns_NXW, weights_NO)
        columns_NXW = torch.where(flip_N[:, None, None], columns_NXW.flip(1), columns_NXW)
        narrow = torch.bmm(mixed, columns_NXW.transpose(1, 2)).view(n, 3, height, size)
        crops_NCYX = torch.matmul(rows_NYH[:, None], narrow).add_(colour_N34[:, :, 3, None, None])
        return crops_NCYX.clamp_(0, 1).sub_(self._mean_C11).div_(self._std_C11)


def _blur_radius(config: AugmentConfig) -> int:
    """Three deviations of the widest blur, in pixels of the crop."""
    if config.strength == "weak" or config.blur == 0:
        return 0
    return math.ceil(3 * config.blur_sigma[1] * config.crop_size / 224)


def resize_matrix(start_N: Tensor, length_N: Tensor, source: int, size: int) -> Tensor:
    """[N, size, source] weights that take pixels start..start+length of `source` to `size`, bilinearly.

    A triangle filter that widens when it shrinks an image (antialiasing) and never looks outside the crop.
    """
    start_N11 = start_N.float()[:, None, None]
    length_N11 = length_N.float()[:, None, None]
    step_N11 = length_N11 / size
    centre_NY1 = start_N11 + (torch.arange(size, device=start_N.device)[:, None] + 0.5) * step_N11
    pixel_H = torch.arange(source, device=start_N.device) + 0.5
    weights_NYH = (1 - (pixel_H - centre_NY1).abs_().div_(step_N11.clamp(min=1))).clamp_(min=0)
    weights_NYH *= (pixel_H > start_N11) & (pixel_H < start_N11 + length_N11)
    return weights_NYH.div_(weights_NYH.sum(2, keepdim=True))


def coarsening_matrix(source: int, share: float, device: torch.device) -> Tensor:
    """[source, source] weights that scale an axis down to `share` of its pixels, and up to `source` again."""
    small = max(1, round(share * source))
    zero_1 = torch.zeros(1, device=device)
    down_SH = resize_matrix(zero_1, zero_1 + source, source, small)[0]
    up_HS = resize_matrix(zero_1, zero_1 + small, small, source)[0]
    return up_HS @ down_SH


def blur_weights(sigma_N: Tensor, radius: int) -> Tensor:
    """[N, 2 radius + 1] Gaussian weights that sum to 1; sigma 0 leaves all weight on the middle."""
    offset_O = torch.arange(-radius, radius + 1, device=sigma_N.device)
    weights_NO = (-0.5 * (offset_O / sigma_N[:, None].clamp(min=1e-3)) ** 2).exp()
    return weights_NO / weights_NO.sum(1, keepdim=True)


def blur_matrix(matrix_NYH: Tensor, weights_NO: Tensor) -> Tensor:
    """Blur the output side of a resize matrix; the image is mirrored at its edges."""
    size, radius = matrix_NYH.shape[1], weights_NO.shape[1] // 2
    if radius == 0:
        return matrix_NYH
    position_Y = torch.arange(size, device=matrix_NYH.device)
    blurred_NYH = torch.zeros_like(matrix_NYH)
    for index, offset in enumerate(range(-radius, radius + 1)):
        mirrored_Y = (size - 1) - ((size - 1) - (position_Y + offset).abs()).abs()
        blurred_NYH.addcmul_(matrix_NYH[:, mirrored_Y], weights_NO[:, index, None, None])
    return blurred_NYH


def colour_matrix(factors_N4: Tensor, order_N4: Tensor, grayscale_N: Tensor, mean_NC: Tensor) -> Tensor:
    """[N, 3, 4] affine map of RGB in 0..1: the four jitters in each image's order, then grayscale.

    Contrast pivots on the mean grey of the image as the operations before it have left it; `mean_NC` is the
    crop's mean colour.
    """
    n, device = len(factors_N4), factors_N4.device
    luma_3 = torch.tensor(LUMA, device=device)
    grey_33 = luma_3.expand(3, 3)
    eye_33 = torch.eye(3, device=device)
    brightness, contrast, saturation, hue = factors_N4[:, :, None, None].unbind(1)
    linear_N433 = torch.stack(
        [
            brightness * eye_33,
            contrast * eye_33,
            saturation * eye_33 + (1 - saturation) * grey_33,
            _hue_rotation(hue),
        ],
        dim=1,
    )
    matrix_N34 = torch.eye(3, 4, device=device).repeat(n, 1, 1)
    mean_N4 = torch.cat([mean_NC, torch.ones(n, 1, device=device)], dim=1)
    every_N = torch.arange(n, device=device)
    for operation_N in order_N4.unbind(1):
        pivot_N = torch.einsum("c,ncd,nd->n", luma_3, matrix_N34, mean_N4)
        shift_N = torch.where(operation_N == 1, (1 - factors_N4[:, 1]) * pivot_N, 0.0)
        matrix_N34 = linear_N433[every_N, operation_N] @ matrix_N34
        matrix_N34[:, :, 3] += shift_N[:, None]
    return torch.where(grayscale_N[:, None, None], grey_33 @ matrix_N34, matrix_N34)


def _hue_rotation(turns_N11: Tensor) -> Tensor:
    """[N, 3, 3] rotations of the IQ plane by `turns`; luma and grey stay as they are."""
    to_yiq_33 = torch.tensor(_RGB_TO_YIQ, dtype=torch.float64)
    to_rgb_33 = torch.linalg.inv(to_yiq_33)
    # luma part + cos x chroma part + sin x chroma part turned by 90 degrees in the IQ plane
    luma = to_rgb_33 @ torch.diag(torch.tensor([1.0, 0, 0], dtype=torch.float64)) @ to_yiq_33
    chroma = torch.eye(3, dtype=torch.float64) - luma
    quarter = torch.tensor([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    turned = to_rgb_33 @ quarter @ to_yiq_33
    angle = 2 * math.pi * turns_N11
    luma, chroma, turned = (part.to(angle) for part in (luma, chroma, turned))
    rotation_N33: Tensor = luma + angle.cos() * chroma + angle.sin() * turned
    return rotation_N33
