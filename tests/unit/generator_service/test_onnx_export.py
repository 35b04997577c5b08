"""ONNX files of the embedded model: what onnxruntime computes from them is what torch computes."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from generator_service.families import load_family
from generator_service.forward import DecoderModule, UNetModule
from generator_service.model_folder import open_model_folder
from generator_service.onnx_export import NETWORKS, OUTPUT, export_network, export_networks, input_name
from generator_service.recipes import Workload, onnx_recipe
from protocol.errors import UserError
from protocol.generation import GenerationSpec

EMBEDDED_SPEC = GenerationSpec(views=2, size=64, steps=1, sampler="ddim", guidance=(1.0,))


def _workload(folder: str, spec: GenerationSpec, images: int, dtype: torch.dtype) -> Workload:
    model = load_family(open_model_folder(folder), device=torch.device("cpu"), dtype=dtype)
    return Workload(model=model, weights="w", spec=spec, images=images)


def _run(file: Path, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    named = {input_name(index): tensor.numpy() for index, tensor in enumerate(inputs)}
    return session.run([OUTPUT], named)[0]


def _random_like(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(11)
    return tuple(torch.randn_like(x) if x.is_floating_point() else torch.full_like(x, 321) for x in inputs)


@pytest.mark.timeout(300)
def test_the_embedded_model_is_the_same_in_onnxruntime(tmp_path: Path) -> None:
    """Each network in one file, its output within float32's rounding of torch's."""
    work = _workload("embedded", EMBEDDED_SPEC, 2, torch.float32)
    said: list[str] = []
    export_networks(work, tmp_path, said.append)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["decoder.onnx", "unet.onnx"]
    unet_inputs, latents_NCHW = work.example_inputs()
    modules = (UNetModule(work.model), DecoderModule(work.model))
    for name, module, examples in zip(NETWORKS, modules, (unet_inputs, (latents_NCHW,)), strict=True):
        inputs = _random_like(examples)
        with torch.no_grad():
            wanted = module(*inputs).numpy()
        got = _run(tmp_path / f"{name}.onnx", inputs)
        assert wanted.std() > 0.1
        assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max()
        assert np.abs(got - wanted).mean() < 1e-6


@pytest.mark.timeout(300)
def test_a_guidance_embedding_and_xl_are_inputs(
    distilled_folder: Path, family_folders: dict[str, Path], tmp_path: Path
) -> None:
    """In the order of the network's arguments, also from images that lie channels last."""
    for folder, size in ((distilled_folder, 32), (family_folders["sdxl"], 16)):
        spec = GenerationSpec(views=2, size=size, steps=2, sampler="euler" if size == 16 else "lcm")
        work = _workload(str(folder), spec, 2, torch.float32)
        work.model.unet.to(memory_format=torch.channels_last)
        inputs = _random_like(work.example_inputs()[0])
        module = UNetModule(work.model)
        file = tmp_path / f"{size}.onnx"
        export_network(module, inputs, file)
        with torch.no_grad():
            wanted = module(*inputs).numpy()
        assert np.abs(_run(file, inputs) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_what_torch_cannot_export_is_told_in_one_line(tmp_path: Path) -> None:
    """Nothing else is to be done about it than another engine."""

    class Branching(torch.nn.Module):
        def forward(self, x_N: torch.Tensor) -> torch.Tensor:
            return x_N if x_N.sum() > 0 else -x_N

    with pytest.raises(UserError, match=r"expected a network that torch exports, got .*choose the eager"):
        export_network(Branching(), (torch.ones(2),), tmp_path / "branching.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_key_names_no_device_and_no_build_of_torch(
    distilled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a machine without a GPU exports for those that have one."""
    spec = GenerationSpec(views=2, size=32, steps=2, sampler="lcm")
    work = _workload(str(distilled_folder), spec, 2, torch.float16)
    monkeypatch.setattr("generator_service.recipes.version", lambda name: "2.13.0+cpu")
    first = onnx_recipe(work)
    monkeypatch.setattr("generator_service.recipes.version", lambda name: "2.13.0+cu130")
    assert onnx_recipe(work) == first
    monkeypatch.setattr("generator_service.recipes.version", lambda name: "2.14.0+cu130")
    assert onnx_recipe(work) != first
