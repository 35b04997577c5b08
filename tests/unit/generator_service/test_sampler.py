"""Images against plain `StableDiffusionPipeline.__call__`, in float32.

Tolerance: at most 1 level of 255, and that only where rounding ties: on at most 1 in 1,000 values.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionPipeline

from generator_service.errors import DrawAbandonedError
from generator_service.families import load_family
from generator_service.guidance import guidance_embedding
from generator_service.model_folder import open_model_folder
from generator_service.sampler import Sampler
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.payload import ImagesNHWC

SEEDS = [11, 12, 2**32 - 1, 14]
CAPTIONS = ["a red dog", "flag of japan"]


def _sample(folder: Path, spec: GenerationSpec, guidance: list[float]) -> ImagesNHWC:
    model = load_family(open_model_folder(str(folder)), device=torch.device("cpu"), dtype=torch.float32)
    return Sampler(model, spec, groups=2).sample(CAPTIONS, SEEDS, guidance, lambda: False).images_NHWC


def _redraw(folder: Path, spec: GenerationSpec, image: int, guidance: float) -> ImagesNHWC:
    """One image as any user of diffusers would draw it."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = {"lcm": LCMScheduler, "ddim": DDIMScheduler}[spec.sampler].from_config(
        pipe.scheduler.config
    )
    drawn = pipe(
        CAPTIONS[image // spec.views],
        negative_prompt=spec.negative_prompt,
        height=spec.size,
        width=spec.size,
        num_inference_steps=spec.steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(SEEDS[image])],
    )
    return np.asarray(drawn.images[0])


def _assert_same(got: ImagesNHWC, expected: ImagesNHWC) -> None:
    off = np.abs(got.astype(int) - expected.astype(int))
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-3


def test_lcm_with_guidance_embedding_equals_diffusers(distilled_folder: Path) -> None:
    """Four steps with noise between them; each image has its own scale."""
    spec = GenerationSpec(views=2, size=32, steps=4, sampler="lcm", guidance=(2.0, 1.0, 7.3))
    scales = [2.0, 1.0, 7.3, 2.0]
    images = _sample(distilled_folder, spec, scales)
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    for i in (0, 2, 3):
        _assert_same(images[i], _redraw(distilled_folder, spec, i, scales[i]))


def test_ddim_with_two_passes_equals_diffusers(guided_folder: Path) -> None:
    """Guided against a negative prompt, unguided at 1 and below, in one batch."""
    spec = GenerationSpec(
        views=2, size=16, steps=5, sampler="ddim", guidance=(7.3, 1.0, 0.5), negative_prompt="blurry"
    )
    scales = [7.3, 1.0, 0.5, 7.3]
    images = _sample(guided_folder, spec, scales)
    for i in range(4):
        _assert_same(images[i], _redraw(guided_folder, spec, i, scales[i]))


def test_one_pass_where_nothing_is_guided(guided_folder: Path) -> None:
    """With scales of 1 alone the UNet sees the batch once a step, and the images are diffusers' own."""
    spec = GenerationSpec(views=2, size=16, steps=2, sampler="ddim", guidance=(1.0,))
    model = load_family(
        open_model_folder(str(guided_folder)), device=torch.device("cpu"), dtype=torch.float32
    )
    seen: list[int] = []
    model.unet.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    images = Sampler(model, spec, groups=2).sample(CAPTIONS, SEEDS, [1.0] * 4, lambda: False).images_NHWC
    assert seen == [4, 4]
    _assert_same(images[1], _redraw(guided_folder, spec, 1, 1.0))


def test_the_model_tells_captions_seeds_and_scales_apart(distilled_folder: Path) -> None:
    """Else the comparisons above could not fail."""
    spec = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(2.0, 7.3))
    first = _sample(distilled_folder, spec, [2.0] * 4).astype(int)
    other = _sample(distilled_folder, spec, [7.3] * 4).astype(int)
    assert np.abs(first[0] - first[1]).mean() > 2
    assert np.abs(first - other).max() > 1


@pytest.mark.parametrize("width", [64, 33])
def test_guidance_embedding_equals_diffusers(distilled_folder: Path, width: int) -> None:
    """Also for odd widths, which end in a zero."""
    pipe = StableDiffusionPipeline.from_pretrained(distilled_folder, safety_checker=None)
    excess_N = torch.tensor([0.0, 1.0, 6.3])
    assert torch.equal(
        guidance_embedding(excess_N, width), pipe.get_guidance_scale_embedding(excess_N, width)
    )


def test_gives_up_between_steps(distilled_folder: Path) -> None:
    """The question is asked before each step."""
    spec = GenerationSpec(views=2, size=32, steps=4, sampler="lcm")
    model = load_family(
        open_model_folder(str(distilled_folder)), device=torch.device("cpu"), dtype=torch.float32
    )
    answers = iter([False, False, True])
    with pytest.raises(DrawAbandonedError, match="before step 2 of 4"):
        Sampler(model, spec, groups=2).sample(CAPTIONS, SEEDS, [2.0] * 4, lambda: next(answers))


def test_refuses_a_size_that_diffusers_cannot_redraw(distilled_folder: Path) -> None:
    """Sizes are multiples of 8."""
    model = load_family(
        open_model_folder(str(distilled_folder)), device=torch.device("cpu"), dtype=torch.float32
    )
    with pytest.raises(UserError, match="expected a multiple of 8, got 36"):
        Sampler(model, GenerationSpec(views=2, size=36), groups=2)
