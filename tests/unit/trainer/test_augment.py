"""Augmented pixels against torch, kornia and Pillow."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn import functional

from trainer.augment import AT_ONCE, IMAGENET_MEAN, IMAGENET_STD, LUMA, Augment, colour_matrix, normalise
from trainer.augment_config import AugmentConfig
from trainer.augment_parameters import AugmentParameters, Key, draw_parameters

with warnings.catch_warnings():
    # kornia 0.9 scripts functions at import, which torch calls deprecated.
    warnings.simplefilter("ignore")
    from kornia.color import rgb_to_grayscale
    from kornia.filters import gaussian_blur2d

CONFIG = AugmentConfig(crop_size=32)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def images(count: int, height: int = 40, width: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def parameters(count: int, **changed: object) -> AugmentParameters:
    """The parameters that keep the whole 40 x 48 image and change nothing, but for those given."""
    plain = AugmentParameters(
        box_N4=np.tile(np.array([0, 0, 40, 48]), (count, 1)),
        flip_N=np.zeros(count, dtype=np.bool_),
        factors_N4=np.tile(np.array([1.0, 1.0, 1.0, 0.0]), (count, 1)),
        order_N4=np.tile(np.arange(4), (count, 1)),
        grayscale_N=np.zeros(count, dtype=np.bool_),
        sigma_N=np.zeros(count),
        coarse_N=np.ones(count),
    )
    return plain._replace(**changed)  # type: ignore[arg-type]  # fields by name


def to_unit(normalised_NCHW: Tensor) -> Tensor:
    """Undo ImageNet's normalisation."""
    return (
        normalised_NCHW * torch.tensor(IMAGENET_STD)[:, None, None]
        + torch.tensor(IMAGENET_MEAN)[:, None, None]
    )


def resized(images_NHWC: Tensor, antialias: bool = True) -> Tensor:
    unit_NCHW = images_NHWC.permute(0, 3, 1, 2).float() / 255
    return functional.interpolate(unit_NCHW, (32, 32), mode="bilinear", antialias=antialias)


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 48), (5, 7, 20, 18), (11, 0, 29, 48), (39, 47, 1, 1), (3, 3, 32, 32)]
)
def test_a_crop_is_torchs_resize_of_the_slice(box: tuple[int, int, int, int]) -> None:
    """No pixel outside the box is seen; enlarged bilinearly, shrunk with antialiasing."""
    source = images(2)
    got = to_unit(Augment(CONFIG, "cpu").apply(source, parameters(2, box_N4=np.array([box, box]))))
    top, left, h, w = box
    torch.testing.assert_close(got, resized(source[:, top : top + h, left : left + w]), atol=2e-6, rtol=0)


def test_an_enlarged_crop_needs_no_antialiasing() -> None:
    """Up to the crop's own size the result is plain bilinear interpolation."""
    source = images(1)
    got = to_unit(Augment(CONFIG, "cpu").apply(source, parameters(1, box_N4=np.array([[2, 4, 17, 23]]))))
    torch.testing.assert_close(got, resized(source[:, 2:19, 4:27], antialias=False), atol=2e-6, rtol=0)


def test_downsampling_is_torchs_resize_down_and_up_before_the_crop() -> None:
    """Of the chosen images only, each to its own share; the crop is cut from what is left."""
    source = images(3)
    boxes = np.array([[5, 7, 20, 18]] * 3)
    got = to_unit(
        Augment(CONFIG, "cpu").apply(source, parameters(3, box_N4=boxes, coarse_N=np.array([0.25, 1.0, 0.5])))
    )
    unit_NCHW = source.permute(0, 3, 1, 2).float() / 255
    for row, size in ((0, (10, 12)), (1, (40, 48)), (2, (20, 24))):
        small = functional.interpolate(unit_NCHW[[row]], size, mode="bilinear", antialias=True)
        again = functional.interpolate(small, (40, 48), mode="bilinear", antialias=True)
        cut = functional.interpolate(again[:, :, 5:25, 7:25], (32, 32), mode="bilinear", antialias=True)
        torch.testing.assert_close(got[[row]], cut, atol=1e-5, rtol=0)


def test_flip_mirrors_the_chosen_images_only() -> None:
    """Left and right change places in the images whose parameter says so."""
    got = to_unit(Augment(CONFIG, "cpu").apply(images(2), parameters(2, flip_N=np.array([True, False]))))
    expected = resized(images(2))
    torch.testing.assert_close(got[0], expected[0].flip(2), atol=2e-6, rtol=0)
    torch.testing.assert_close(got[1], expected[1], atol=2e-6, rtol=0)


def test_blur_is_kornias_with_each_images_own_sigma() -> None:
    """Gaussian weights cut at the same radius, mirrored edges."""
    config = AugmentConfig(crop_size=32, blur_sigma=(0.1, 14.0))
    sigma = np.array([0.4, 1.1, 2.0])
    got = to_unit(Augment(config, "cpu").apply(images(3), parameters(3, sigma_N=sigma)))
    sigmas = torch.tensor(sigma, dtype=torch.float32)[:, None].repeat(1, 2)
    expected = gaussian_blur2d(resized(images(3)), (13, 13), sigmas, border_type="reflect")
    torch.testing.assert_close(got, expected, atol=5e-6, rtol=0)


def test_grayscale_is_kornias() -> None:
    """All three channels hold the luma."""
    got = to_unit(Augment(CONFIG, "cpu").apply(images(2), parameters(2, grayscale_N=np.array([True, True]))))
    torch.testing.assert_close(
        got, rgb_to_grayscale(resized(images(2))).expand(-1, 3, -1, -1), atol=3e-6, rtol=0
    )


@pytest.mark.parametrize(
    ("operation", "factor", "enhance"),
    [
        (BRIGHTNESS, 0.7, ImageEnhance.Brightness),
        (CONTRAST, 0.6, ImageEnhance.Contrast),
        (CONTRAST, 1.2, ImageEnhance.Contrast),
        (SATURATION, 0.3, ImageEnhance.Color),
        (SATURATION, 1.3, ImageEnhance.Color),
    ],
)
def test_a_single_jitter_is_pillows(operation: int, factor: float, enhance: type) -> None:
    """Within the rounding of 8 bits, on colours far enough from black and white for nothing to be clamped."""
    source = images(1, 32, 32) // 3 + 80
    factors = np.array([[1.0, 1.0, 1.0, 0.0]])
    factors[0, operation] = factor
    box = np.array([[0, 0, 32, 32]])
    got = to_unit(Augment(CONFIG, "cpu").apply(source, parameters(1, factors_N4=factors, box_N4=box)))[0]
    expected = (
        np.asarray(enhance(Image.fromarray(source[0].numpy())).enhance(factor)).transpose(2, 0, 1) / 255
    )
    assert np.abs(got.numpy() - expected).max() < 1.6 / 255


def test_hue_turns_chroma_and_keeps_luma_and_grey() -> None:
    """Luma stays, a grey stays itself, a full turn and two opposite turns come back."""
    rgb = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    order, grey = torch.arange(4).repeat(3, 1), torch.zeros(3, dtype=torch.bool)
    factors = torch.tensor([[1, 1, 1, 0.3], [1, 1, 1, -0.3], [1, 1, 1, 1.0]])
    matrices = colour_matrix(factors, order, grey, torch.zeros(3, 3))
    turned = rgb @ matrices[0, :, :3].T
    luma = torch.tensor(LUMA)
    torch.testing.assert_close(turned @ luma, rgb @ luma, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        matrices[0] @ torch.tensor([0.4, 0.4, 0.4, 1]), torch.full((3,), 0.4), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(turned @ matrices[1, :, :3].T, rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(matrices[2, :, :3], torch.eye(3), atol=1e-5, rtol=0)
    assert (turned - rgb).abs().mean() > 0.05


def test_jitters_follow_the_drawn_order_with_the_contrast_pivot_at_its_place() -> None:
    """The folded matrix equals the operations one by one, where contrast sees the mean grey it finds."""
    order = [SATURATION, BRIGHTNESS, HUE, CONTRAST]
    for turn in range(4):
        operations = order[turn:] + order[:turn]
        factors = np.array([[0.9, 0.8, 0.7, 0.05]])
        got = to_unit(
            Augment(CONFIG, "cpu").apply(
                images(1) // 3 + 80, parameters(1, factors_N4=factors, order_N4=np.array([operations]))
            )
        )[0]
        x = resized(images(1) // 3 + 80)[0].double()
        luma = torch.tensor(LUMA, dtype=torch.float64)
        for operation in operations:
            grey_HW = torch.einsum("c,chw->hw", luma, x)
            if operation == BRIGHTNESS:
                x = 0.9 * x
            elif operation == CONTRAST:
                x = 0.8 * x + 0.2 * grey_HW.mean()
            elif operation == SATURATION:
                x = 0.7 * x + 0.3 * grey_HW
            else:
                hue = colour_matrix(
                    torch.tensor([[1, 1, 1, 0.05]]),
                    torch.arange(4)[None],
                    torch.tensor([False]),
                    torch.zeros(1, 3),
                )[0, :, :3]
                x = torch.einsum("dc,chw->dhw", hue.double(), x)
        torch.testing.assert_close(got.double(), x, atol=1e-5, rtol=0)


def keys_of(groups: list[int]) -> list[Key]:
    return [(11, group, 2, 1) for group in groups]


def test_an_image_does_not_depend_on_its_batch() -> None:
    """The same image and key give the same pixels alone, among others and at another place."""
    augment = Augment(CONFIG, "cpu")
    source = images(6)
    whole = augment(source, keys_of([1, 2, 3, 4, 5, 6]))
    some = augment(source[[4, 1]], keys_of([5, 2]))
    torch.testing.assert_close(some, whole[[4, 1]], atol=1e-5, rtol=0)
    torch.testing.assert_close(augment(source[3:4], keys_of([4])), whole[3:4], atol=1e-5, rtol=0)


def test_a_batch_larger_than_what_is_augmented_at_once_is_all_augmented() -> None:
    """Each image by its own key, beyond the first part as well."""
    count = AT_ONCE + 3
    many_NHWC, augment = images(count, 10, 12), Augment(AugmentConfig(crop_size=8), "cpu")
    keys: list[Key] = [(0, group, 0, 1) for group in range(count)]
    crops_NCYX = augment(many_NHWC, keys)
    for image in (0, AT_ONCE - 1, AT_ONCE, count - 1):
        [alone_CYX] = augment(many_NHWC[image : image + 1], keys[image : image + 1])
        torch.testing.assert_close(crops_NCYX[image], alone_CYX)


def test_a_second_use_looks_different() -> None:
    """The same image used again is cropped and coloured anew."""
    augment = Augment(CONFIG, "cpu")
    first, second = augment(torch.cat([images(1)] * 2), [(1, 5, 0, 1), (1, 5, 0, 2)])
    assert (first - second).abs().mean() > 0.1


def test_arrays_and_tensors_give_the_same_normalised_range() -> None:
    """NumPy input equals tensor input; values lie in what ImageNet's mean and deviation make of 0..1."""
    augment = Augment(AugmentConfig(crop_size=32, jitter=1.0, jitter_strength=(1.0, 1.0, 2.0, 0.5)), "cpu")
    out = augment(images(20), keys_of(list(range(20))))
    assert torch.equal(out, augment(images(20).numpy(), keys_of(list(range(20)))))
    assert out.dtype == torch.float32
    assert out.shape == (20, 3, 32, 32)
    unit = to_unit(out)
    assert -1e-6 <= unit.min() < 0.01
    assert 0.99 < unit.max() <= 1 + 1e-6


def test_weak_is_crop_and_normalisation_alone() -> None:
    """Every image equals the resized slice of its box."""
    config = AugmentConfig(crop_size=32, strength="weak")
    got = to_unit(Augment(config, "cpu")(images(8), keys_of(list(range(8)))))
    boxes = draw_parameters(config, keys_of(list(range(8))), 40, 48).box_N4
    for index, (top, left, h, w) in enumerate(boxes):
        expected = resized(images(8)[index : index + 1, top : top + h, left : left + w])
        torch.testing.assert_close(got[index : index + 1], expected, atol=2e-6, rtol=0)


def test_normalise_is_imagenets() -> None:
    """Mean colour becomes 0, one deviation above becomes 1."""
    pixel = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    expected = [
        (value / 255 - m) / s for value, m, s in zip([0, 128, 255], IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    assert normalise(pixel)[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)
