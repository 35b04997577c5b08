"""The model that ships: its size, its format, and that plain diffusers redraws what the worker drew."""

import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from generator_service.config import GeneratorConfig
from generator_service.model_folder import TINY_DECODER_FOLDER
from generator_service.worker import prepare
from protocol.generation import GenerationSpec
from trainer.captions import load_captions
from trainer.config import CaptionsConfig
from trainer.plan import Plan

MODEL = Path(str(files("generator_service"))) / "embedded" / "model"
DATA = Path(str(files("trainer"))) / "embedded"
TINY_LEVELS = 4.0
"""Of 255, more than the mean difference that its training ended with."""


def test_weights_are_safetensors_of_at_most_40_megabytes() -> None:
    """Small enough to clone, and no format that could run code."""
    names = {path.suffix for path in MODEL.rglob("*") if path.is_file()}
    assert names <= {".json", ".txt", ".md", ".safetensors"}
    assert sum(path.stat().st_size for path in MODEL.rglob("*.safetensors")) <= 40_000_000
    assert (MODEL / "README.md").is_file()


def test_the_tiny_decoder_is_smaller_and_draws_nearly_the_same() -> None:
    """Under 1 MB of weights, and about as far from the own decoder as its training said."""
    assert sum(path.stat().st_size for path in TINY_DECODER_FOLDER.rglob("*.safetensors")) < 1_000_000
    assert (TINY_DECODER_FOLDER / "README.md").is_file()
    plan = Plan(load_captions(CaptionsConfig()), 3, GenerationSpec(views=8, steps=1, guidance=(1.0,)))
    images = []
    for decoder in ("", "embedded-tiny"):
        config = GeneratorConfig(batch_images=24, precision="float32", device="cpu", decoder=decoder)
        _, build = prepare(config)
        tickets = [plan.ticket(group) for group in (7, 300, 1200)]
        images.append(np.concatenate(build(plan.spec, lambda: False).draw(tickets, lambda: False)))
    own, tiny = (drawn.astype(np.float64) for drawn in images)
    assert 0 < np.abs(own - tiny).mean() < TINY_LEVELS
    assert np.abs(own - tiny).mean() < np.abs(own[:-1] - own[1:]).mean() / 10


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning"
)  # diffusers' own, in a pipeline
def test_plain_diffusers_redraws_a_group() -> None:
    """The same captions, seeds and guidance through `StableDiffusionPipeline`: at most one level apart, and
    that only where rounding ties."""
    plan = Plan(load_captions(CaptionsConfig()), 0, GenerationSpec(views=3))
    _, build = prepare(GeneratorConfig(batch_images=6, precision="float32", device="cpu"))
    engine = build(plan.spec, lambda: False)
    assert engine.exact
    tickets = [plan.ticket(5), plan.ticket(1917)]
    drawn = engine.draw(tickets, lambda: False)
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL)
    pipeline.set_progress_bar_config(disable=True)
    for ticket, images_NHWC in zip(tickets, drawn, strict=True):
        output = pipeline(
            [ticket.caption] * ticket.views,
            num_inference_steps=plan.spec.steps,
            guidance_scale=ticket.guidance[0],
            height=plan.spec.size,
            width=plan.spec.size,
            generator=[torch.Generator().manual_seed(seed) for seed in ticket.seeds],
            output_type="np",
        )
        expected_NHWC = np.round(output.images * 255)
        difference = np.abs(expected_NHWC - images_NHWC.astype(np.float64))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-3


def test_every_drawing_is_listed_and_attributed() -> None:
    """5,674 drawings of three styles, the held-out style, and the names that captions are made of."""
    with (DATA / "drawings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    styles = {row["style"] for row in rows}
    assert styles == {"noto", "twemoji", "fluent", "openmoji"}
    names = {row["name"] for row in rows if row["style"] != "openmoji"}
    assert names == set((DATA / "captions.txt").read_text("utf-8").splitlines())
    text = (DATA / "ATTRIBUTION.md").read_text("utf-8")
    assert all(word in text for word in ("Noto", "Twemoji", "Fluent", "OpenMoji", "CC BY-SA 4.0"))
