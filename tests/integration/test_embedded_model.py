"""The model that ships: its size, its format, and that plain diffusers redraws what the worker drew."""

import csv
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from generator_service.config import GeneratorConfig
from generator_service.worker import prepare
from protocol.generation import GenerationSpec
from trainer.captions import load_captions
from trainer.config import CaptionsConfig
from trainer.plan import Plan

MODEL = Path(str(files("generator_service"))) / "embedded" / "model"
DATA = Path(str(files("trainer"))) / "embedded"


def test_weights_are_safetensors_of_at_most_40_megabytes() -> None:
    """Small enough to clone, and no format that could run code."""
    names = {path.suffix for path in MODEL.rglob("*") if path.is_file()}
    assert names <= {".json", ".txt", ".md", ".safetensors"}
    assert sum(path.stat().st_size for path in MODEL.rglob("*.safetensors")) <= 40_000_000
    assert (MODEL / "README.md").is_file()


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
