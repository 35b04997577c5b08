"""The torch-tensorrt engine around a stand-in for its compiler, which gives back the program as it was."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from generator_service import torch_tensorrt_making
from generator_service.engine_cache import EngineCache
from generator_service.families import load_family
from generator_service.forward import Conditions, PlainForward
from generator_service.model_folder import open_model_folder
from generator_service.recipes import Workload
from protocol.errors import UserError
from protocol.generation import GenerationSpec

SPEC = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(1.0, 3.0))


def _stand_in(settings: list[dict[str, Any]]) -> SimpleNamespace:
    def compile_program(program: torch.export.ExportedProgram, **given: Any) -> torch.nn.Module:
        settings.append(given)
        Path(given["timing_cache_path"]).write_bytes(b"timings")
        return program.module()

    def save(module: torch.nn.Module, file: str, *, arg_inputs: tuple[torch.Tensor, ...]) -> None:
        torch.export.save(torch.export.export(module, arg_inputs, strict=False), file)

    dynamo = SimpleNamespace(compile=compile_program)
    return SimpleNamespace(__name__="torch_tensorrt", __version__="2", dynamo=dynamo, save=save)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.export uses what torch deprecates
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_programs_are_built_once_and_compute_what_the_networks_do(
    distilled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mask is made causal, and nothing is left beside the programs."""
    settings: list[dict[str, Any]] = []
    for module in (_stand_in(settings), SimpleNamespace(__name__="tensorrt", __version__="11")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch_tensorrt_making, "check_device", lambda device, where: None)
    opened = open_model_folder(str(distilled_folder))
    model = load_family(opened, device=torch.device("cpu"), dtype=torch.float32)
    work = Workload(model=model, weights="w", spec=SPEC, images=2)
    making = torch_tensorrt_making.torch_tensorrt_making(work, lambda text: None)
    assert making.recipe["libraries"]["tensorrt"] == "11"
    folder, built = EngineCache(tmp_path).make(making.recipe, making.build, lambda: False)
    assert set(built.files) == {"unet.ep", "decoder.ep"}
    assert [given["attn_bias_is_causal"] for given in settings] == [False, False]
    loaded, plain = making.load(folder), PlainForward(model)
    torch.manual_seed(3)
    x_NCHW, timestep, *rest = work.example_inputs()[0]
    text_NTD, guidance_NE = (torch.randn_like(tensor) for tensor in rest)
    conditions = Conditions(text_NTD=text_NTD, guidance_NE=guidance_NE, pooled_NP=None, time_ids_N6=None)
    x_NCHW = torch.randn_like(x_NCHW)
    with torch.no_grad():
        got_NCHW, wanted_NCHW = (one.unet(x_NCHW, timestep, conditions) for one in (loaded, plain))
        assert torch.allclose(got_NCHW, wanted_NCHW, rtol=1e-4, atol=1e-5)
        assert torch.allclose(loaded.decode(x_NCHW), plain.decode(x_NCHW), rtol=1e-4, atol=1e-5)


def test_an_import_that_asks_a_driver_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises what CUDA says, of any kind."""

    def fail(name: str) -> None:
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease install one")

    monkeypatch.setattr(torch_tensorrt_making.importlib, "import_module", fail)
    with pytest.raises(
        UserError, match=r"and a CUDA driver, .* got Found no NVIDIA driver on your system\.; pip"
    ):
        torch_tensorrt_making.import_torch_tensorrt()
