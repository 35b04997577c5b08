"""Any other pipeline by its own call: the same images as that call, what it cannot honour refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from generator_service.config import GeneratorConfig
from generator_service.pipeline_engine import PipelineEngine, open_pipeline
from generator_service.worker import prepare
from protocol.errors import UserError
from protocol.generation import GenerationSpec

SPEC = GenerationSpec(views=2, size=16, steps=2, sampler="own", guidance=(1.0, 3.0))
CONFIG = GeneratorConfig(engine="pipeline", batch_images=6, precision="float32")


@pytest.fixture
def other_folder(guided_folder: Path, tmp_path: Path, edit_json) -> Path:
    """A pipeline whose loop is not the sampler's: perturbed-attention guidance."""
    folder = Path(shutil.copytree(guided_folder, tmp_path / "model"))
    edit_json(folder / "model_index.json", _class_name="StableDiffusionPAGPipeline")
    return folder


def test_groups_are_the_pipelines_own_images(other_folder: Path, make_ticket) -> None:
    """Whatever else is drawn with them; the worker names it the slow way."""
    _, build = prepare(GeneratorConfig(model=str(other_folder), **_settings()))
    engine = build(SPEC, lambda: False)
    assert engine.exact
    assert engine.batch_images == 2
    assert "the slow way (StableDiffusionPAGPipeline by its own call)" in engine.summary
    tickets = [make_ticket(i, f"caption {i}", views=2, guidance=(3.0,)) for i in range(2)]
    first, second = engine.draw(tickets, lambda: False)
    (alone,) = engine.draw(tickets[1:], lambda: False)
    assert np.array_equal(second, alone)
    pipeline = DiffusionPipeline.from_pretrained(other_folder)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        ["caption 0"] * 2,
        height=16,
        width=16,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for seed in tickets[0].seeds],
    ).images
    assert np.array_equal(first, np.stack([np.asarray(image) for image in expected]))


def _settings() -> dict[str, object]:
    return {"engine": "pipeline", "batch_images": 6, "precision": "float32"}


def test_what_a_pipeline_cannot_honour_is_refused(
    other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sampler, guidance where its call has none, pickled weights."""
    folder, weights = open_pipeline(str(other_folder))
    with pytest.raises(UserError, match=r"generation\.sampler: .* expected own, got ddim"):
        PipelineEngine(CONFIG, folder, weights, GenerationSpec(views=2, size=16), lambda: False)

    def call(self, prompt, height, width, num_inference_steps, generator, output_type):
        raise AssertionError("refused before")

    monkeypatch.setattr("diffusers.StableDiffusionPAGPipeline.__call__", call)
    with pytest.raises(UserError, match=r"has no guidance: expected \[1\.0\], got \[1\.0, 3\.0\]"):
        PipelineEngine(CONFIG, folder, weights, SPEC, lambda: False)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickled weights: expected safetensors alone"):
        open_pipeline(str(folder))
