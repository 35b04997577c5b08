"""Images that are drawn larger than they are sent."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.model_folder import open_model_folder
from generator_service.resize import to_pixels
from protocol.errors import UserError
from protocol.generation import GenerationSpec


def _smooth(count: int, size: int) -> torch.Tensor:
    """Random colours at 4 x 4, spread out: what a bicubic filter neither rings on nor clips."""
    coarse = 0.2 + 0.6 * torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


@pytest.mark.parametrize(("drawn", "size"), [(64, 32), (96, 32), (48, 36)])
def test_images_are_scaled_down_as_pillow_does(drawn: int, size: int) -> None:
    """Its bicubic filter is another author's; rounding before and after may part them by a level or two."""
    unit_NCHW = _smooth(3, drawn)
    found = to_pixels(unit_NCHW, size).numpy()
    for image_CHW, got in zip(unit_NCHW, found, strict=True):
        large = Image.fromarray((image_CHW * 255).round().byte().permute(1, 2, 0).numpy())
        expected = np.asarray(large.resize((size, size), Image.Resampling.BICUBIC))
        assert np.abs(got.astype(int) - expected).max() <= 2


def test_images_of_the_right_size_are_only_rounded() -> None:
    """To the nearest of 256 levels."""
    unit_NCHW = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = np.rint(unit_NCHW.permute(0, 2, 3, 1).numpy() * 255)
    assert np.array_equal(to_pixels(unit_NCHW, 8).numpy(), expected)


def test_an_engine_draws_at_one_size_and_sends_another(distilled_folder: Path, make_ticket: Any) -> None:
    """What it sends is what it draws without scaling, scaled; and names other content."""
    folder = open_model_folder(str(distilled_folder))
    config = GeneratorConfig(model=str(distilled_folder), batch_images=4, precision="float32")
    engines = [
        DiffusionEngine(
            config,
            folder,
            folder.weights_digest(),
            GenerationSpec(views=2, size=size, draw_size=draw_size, steps=2, sampler="lcm", guidance=(3.0,)),
            lambda: False,
        )
        for size, draw_size in ((32, 0), (16, 32))
    ]
    ticket = make_ticket(1, "a caption", views=2, guidance=(3.0,))
    large, small = (engine.draw([ticket], lambda: False)[0] for engine in engines)
    assert (large.shape, small.shape) == ((2, 32, 32, 3), (2, 16, 16, 3))
    scaled = to_pixels(torch.from_numpy(large).permute(0, 3, 1, 2) / 255, 16).numpy()
    assert np.abs(small.astype(int) - scaled).max() <= 1
    assert engines[0].content_hash != engines[1].content_hash


def test_a_size_that_can_not_be_drawn_is_named_by_its_setting(distilled_folder: Path) -> None:
    """The drawn size has to suit the model; the other one is free."""
    folder = open_model_folder(str(distilled_folder))
    config = GeneratorConfig(model=str(distilled_folder), batch_images=4, precision="float32")
    spec = GenerationSpec(views=2, size=15, draw_size=20, steps=2, sampler="lcm", guidance=(3.0,))
    with pytest.raises(UserError, match=r"generation\.draw_size: .* got 20"):
        DiffusionEngine(config, folder, folder.weights_digest(), spec, lambda: False)
