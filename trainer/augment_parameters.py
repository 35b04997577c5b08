"""What is done to each image: parameters drawn from the image's own key, and from nothing else.

Shapes: N images. A draw is a counter-based hash, so neither the batch around an image nor the order in which
images come can change it.
"""

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from trainer.augment_config import AugmentConfig

Key = tuple[int, int, int, int]
"""(run seed, group id, view, use)"""

_CROP_ATTEMPTS = 10
_CROP_RATIO = (3 / 4, 4 / 3)
_WEAK_CROP_SCALE = (0.5, 1.0)
_BLUR_REFERENCE_SIZE = 224
# Columns of the table of draws; the attempts at a crop take (area, ratio) pairs from _CROP_SHAPE on.
_CROP_TOP, _CROP_LEFT, _FLIP, _JITTER, _GRAYSCALE, _BLUR, _SIGMA = range(7)
_FACTORS, _ORDER, _CROP_SHAPE = 7, 11, 15
_COARSE = _CROP_SHAPE + 2 * _CROP_ATTEMPTS
_COARSE_SHARE = _COARSE + 1
_DRAWS = _COARSE + 2
COARSE_SHARES = (64 / 256, 128 / 256)
"""The paper scales its pictures of 256 pixels down to 64 or 128 and up again."""


class AugmentParameters(NamedTuple):
    """One row an image."""

    box_N4: NDArray[np.int64]
    """Crop: top, left, height, width in pixels of the source."""
    flip_N: NDArray[np.bool_]
    factors_N4: NDArray[np.float64]
    """Brightness, contrast, saturation (1 changes nothing) and hue in turns (0 changes nothing)."""
    order_N4: NDArray[np.int64]
    """The order in which those four are applied."""
    grayscale_N: NDArray[np.bool_]
    sigma_N: NDArray[np.float64]
    """Of the blur, in pixels of the crop; 0 is no blur."""
    coarse_N: NDArray[np.float64]
    """The share of the source's size that it is scaled down to, and up from again; 1 changes nothing."""


def uniforms(keys: Sequence[Key], count: int) -> NDArray[np.float64]:
    """[N, count] numbers in [0, 1): draw i of a key is SplitMix64's i-th output (Steele et al. 2014), seeded
    with the key's xxh3 hash."""
    seeds = [
        xxhash.xxh3_64_intdigest(struct.pack("<4Q", *(part & (2**64 - 1) for part in key))) for key in keys
    ]
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = np.array(seeds, dtype=np.uint64)[:, None] + steps[None, :]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def draw_parameters(config: AugmentConfig, keys: Sequence[Key], height: int, width: int) -> AugmentParameters:
    """The parameters of images of `height` x `width` pixels; probabilities and ranges are the config's."""
    draws = uniforms(keys, _DRAWS)
    weak = config.strength == "weak"
    box = _draw_boxes(draws, _WEAK_CROP_SCALE if weak else config.crop_scale, height, width)
    neutral = np.array([1.0, 1.0, 1.0, 0.0])
    order = np.argsort(draws[:, _ORDER : _ORDER + 4], axis=1, kind="stable")
    if weak:
        nothing = np.zeros(len(keys), dtype=np.bool_)
        return AugmentParameters(
            box,
            nothing,
            np.tile(neutral, (len(keys), 1)),
            order,
            nothing,
            np.zeros(len(keys)),
            np.ones(len(keys)),
        )
    reach = np.array(config.jitter_strength)
    least, most = np.maximum(0.0, neutral - reach) * [1, 1, 1, 0] - reach * [0, 0, 0, 1], neutral + reach
    factors = least + draws[:, _FACTORS : _FACTORS + 4] * (most - least)
    share = np.array(COARSE_SHARES)[(draws[:, _COARSE_SHARE] * len(COARSE_SHARES)).astype(np.int64)]
    low, high = config.blur_sigma
    sigma = (low + draws[:, _SIGMA] * (high - low)) * config.crop_size / _BLUR_REFERENCE_SIZE
    return AugmentParameters(
        box_N4=box,
        flip_N=draws[:, _FLIP] < config.flip,
        factors_N4=np.where(draws[:, _JITTER, None] < config.jitter, factors, neutral),
        order_N4=order,
        grayscale_N=draws[:, _GRAYSCALE] < config.grayscale,
        sigma_N=np.where(draws[:, _BLUR] < config.blur, sigma, 0.0),
        coarse_N=np.where(draws[:, _COARSE] < config.downsample, share, 1.0),
    )


def _draw_boxes(
    draws: NDArray[np.float64], scale: tuple[float, float], height: int, width: int
) -> NDArray[np.int64]:
    """Random resized crop: the first of ten random (area, ratio) shapes that fits, else the largest centred
    one of an allowed ratio. Ratios are log-uniform in 3/4 to 4/3, positions uniform."""
    shape = draws[:, _CROP_SHAPE:_COARSE].reshape(len(draws), _CROP_ATTEMPTS, 2)
    area = (scale[0] + shape[..., 0] * (scale[1] - scale[0])) * height * width
    low, high = math.log(_CROP_RATIO[0]), math.log(_CROP_RATIO[1])
    ratio = np.exp(low + shape[..., 1] * (high - low))
    widths = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    heights = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first, rows = fits.argmax(axis=1), np.arange(len(draws))
    found = fits.any(axis=1)
    h = np.where(found, heights[rows, first], min(height, round(width / _CROP_RATIO[0])))
    w = np.where(found, widths[rows, first], min(width, round(height * _CROP_RATIO[1])))
    top = np.where(found, np.floor(draws[:, _CROP_TOP] * (height - h + 1)), (height - h) // 2)
    left = np.where(found, np.floor(draws[:, _CROP_LEFT] * (width - w + 1)), (width - w) // 2)
    return np.stack([top.astype(np.int64), left.astype(np.int64), h, w], axis=1)
