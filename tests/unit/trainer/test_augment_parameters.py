"""Random parameters: functions of the key alone, with the distributions of the config."""

import numpy as np
import pytest

from trainer.augment_config import AugmentConfig
from trainer.augment_parameters import draw_parameters, uniforms

MANY = [(1, group, view, use) for group in range(400) for view in range(5) for use in range(2)]


def splitmix64(state: int) -> tuple[int, int]:
    """The generator as published (Steele, Lea & Flood 2014), in Python's integers."""
    mask = (1 << 64) - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return state, z ^ (z >> 31)


def test_uniforms_are_splitmix64_seeded_by_the_key() -> None:
    """Draws equal the published generator's from the same state, including keys of 63 bits."""
    import struct

    import xxhash

    key = (2**63 - 1, 12345678901234, 3, 2)
    state = xxhash.xxh3_64_intdigest(struct.pack("<4Q", *key))
    expected = []
    for _ in range(6):
        state, bits = splitmix64(state)
        expected.append((bits >> 11) / 2**53)
    assert uniforms([(0, 0, 0, 0), key], 6)[1].tolist() == expected


def test_draws_look_uniform_and_unrelated() -> None:
    """Means near 1/2, variances near 1/12, neighbouring keys uncorrelated in every column."""
    draws = uniforms(MANY, 20)
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs(draws.var(axis=0) - 1 / 12).max() < 0.01
    for column in range(20):
        assert abs(np.corrcoef(draws[:-1, column], draws[1:, column])[0, 1]) < 0.06
    assert np.abs(np.corrcoef(draws.T) - np.eye(20)).max() < 0.08


@pytest.mark.parametrize("part", range(4))
def test_every_part_of_the_key_matters(part: int) -> None:
    """Another run seed, group, view or use gives other parameters."""
    key = [7, 8, 9, 10]
    other = list(key)
    other[part] += 1
    config = AugmentConfig()
    a = draw_parameters(config, [tuple(key)], 64, 64)  # type: ignore[list-item]  # four integers
    b = draw_parameters(config, [tuple(other)], 64, 64)  # type: ignore[list-item]  # four integers
    assert a.box_N4.tolist() != b.box_N4.tolist()
    assert a.sigma_N.tolist() != b.sigma_N.tolist() or a.factors_N4.tolist() != b.factors_N4.tolist()


def test_frequencies_and_ranges_follow_the_config() -> None:
    """Each probability is met within 4 standard errors, each range is filled and kept."""
    config = AugmentConfig(
        flip=0.3,
        jitter=0.6,
        grayscale=0.1,
        blur=0.25,
        jitter_strength=(0.5, 0.3, 1.5, 0.2),
        blur_sigma=(0.7, 2.1),
        downsample=0.4,
    )
    drawn = draw_parameters(config, MANY, 64, 64)
    count = len(MANY)
    assert set(drawn.coarse_N) == {0.25, 0.5, 1.0}
    assert abs((drawn.coarse_N == 0.25).mean() - 0.2) < 4 * (0.2 * 0.8 / count) ** 0.5
    jittered = (drawn.factors_N4 != [1, 1, 1, 0]).any(axis=1)
    for happened, probability in [
        (drawn.flip_N, 0.3), (jittered, 0.6), (drawn.grayscale_N, 0.1), (drawn.sigma_N > 0, 0.25),
        (drawn.coarse_N < 1, 0.4),
    ]:  # fmt: skip
        error = (probability * (1 - probability) / count) ** 0.5
        assert abs(happened.mean() - probability) < 4 * error
    factors = drawn.factors_N4[jittered]
    for column, (low, high) in enumerate([(0.5, 1.5), (0.7, 1.3), (0, 2.5), (-0.2, 0.2)]):
        assert low <= factors[:, column].min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < factors[:, column].max() <= high
    sigma = drawn.sigma_N[drawn.sigma_N > 0] * 224 / 64
    assert 0.7 <= sigma.min() < 0.75
    assert 2.05 < sigma.max() <= 2.1
    assert len({tuple(order) for order in drawn.order_N4.tolist()}) == 24


@pytest.mark.parametrize(("height", "width", "largest"), [(64, 64, 0.7), (40, 90, 40 * 53 / 3600)])
def test_boxes_lie_inside_with_the_configured_area_and_ratio(height: int, width: int, largest: float) -> None:
    """Crops keep scale and ratio up to rounding to whole pixels, and reach every edge.

    In the long image 4/3 of its height limits the area.
    """
    drawn = draw_parameters(AugmentConfig(crop_scale=(0.2, 0.7)), MANY, height, width)
    top, left, h, w = drawn.box_N4.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    share = h * w / (height * width)
    assert 0.19 < share.min() < 0.22
    assert largest - 0.04 < share.max() < largest + 0.02
    assert 0.7 < (w / h).min() < 0.8
    assert 1.27 < (w / h).max() < 1.4
    for edge in (top == 0, left == 0, top + h == height, left + w == width):
        assert edge.any()


def test_a_shape_that_never_fits_becomes_the_largest_centred_one() -> None:
    """The whole of a long image has no ratio of 3/4 to 4/3: the crop is central, at the nearest ratio."""
    drawn = draw_parameters(AugmentConfig(crop_scale=(1.0, 1.0)), MANY[:50], 30, 120)
    assert (drawn.box_N4 == [0, 40, 30, 40]).all()


def test_weak_draws_half_to_whole_crops_and_nothing_else() -> None:
    """`strength = "weak"` ignores the other settings."""
    drawn = draw_parameters(
        AugmentConfig(strength="weak", crop_scale=(0.08, 0.1), downsample=1.0), MANY, 64, 64
    )
    share = drawn.box_N4[:, 2] * drawn.box_N4[:, 3] / 64**2
    assert 0.48 < share.min() < 0.52
    assert share.max() > 0.95
    assert not drawn.flip_N.any()
    assert not drawn.grayscale_N.any()
    assert (drawn.sigma_N == 0).all()
    assert (drawn.coarse_N == 1).all()
    assert (drawn.factors_N4 == [1, 1, 1, 0]).all()
