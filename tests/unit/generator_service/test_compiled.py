"""The compiled engine on a CPU: built once, loaded from then on, near eager, exact in every slot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from generator_service import recipes
from generator_service.compiled import CompiledForward
from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.families import load_family
from generator_service.forward import Conditions
from generator_service.model_folder import open_model_folder
from generator_service.recipes import Workload, compile_recipe
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.identity import digest_of

SPEC = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(1.0, 3.0))


def _engine(
    folder: Path, cache: Path, engine: str, said: list[str] | None = None, spec: GenerationSpec = SPEC
) -> DiffusionEngine:
    config = GeneratorConfig(engine=engine, engine_cache=str(cache), batch_images=6, precision="bfloat16")
    opened = open_model_folder(str(folder))
    say = (said if said is not None else []).append
    return DiffusionEngine(config, opened, opened.weights_digest(), spec, lambda: False, say)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.export uses what torch deprecates
def test_auto_takes_what_is_built_and_says_why(distilled_folder: Path, tmp_path: Path, make_ticket) -> None:
    """Eager before the build, then compile, whose images are eager's within bfloat16's rounding."""
    said: list[str] = []
    eager = _engine(distilled_folder, tmp_path, "auto", said)
    assert said == ["engine eager: compile is not built: `streamrep engine build` does so"]
    built = _engine(distilled_folder, tmp_path, "compile")
    loaded = _engine(distilled_folder, tmp_path, "auto", said)
    assert said[1:] == ["engine compile: compile is the fastest of those that work, and built"]
    assert built.engine_hash == loaded.engine_hash != eager.engine_hash
    assert built.content_hash == eager.content_hash
    assert loaded.exact
    tickets = [make_ticket(i, f"caption {i}", views=2, guidance=(1.0, 3.0)) for i in range(3)]
    got, same = loaded.draw(tickets, lambda: False), built.draw(tickets, lambda: False)
    for one, other, wanted in zip(got, same, eager.draw(tickets, lambda: False), strict=True):
        assert np.array_equal(one, other)
        assert np.abs(one.astype(int) - wanted).mean() < 2
    alone, *_ = loaded.draw(tickets[2:], lambda: False)
    assert np.array_equal(alone, got[2])


def test_an_engine_that_cannot_be_built_says_why(
    distilled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """xformers wants its package and CUDA, compile a compiler; neither falls back by itself."""
    with pytest.raises(UserError, match="expected the package xformers and a CUDA device, got "):
        _engine(distilled_folder, tmp_path, "xformers")
    monkeypatch.setattr("torch.export.export", lambda *_, **__: (_ for _ in ()).throw(ValueError("no")))
    with pytest.raises(UserError, match=r"a C\+\+ compiler, got no; install g\+\+, or choose the eager"):
        _engine(distilled_folder, tmp_path, "compile")


def test_what_cannot_be_drawn_is_refused_before_anything_is_built(
    distilled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt sampler does not cost minutes."""
    monkeypatch.setattr("generator_service.compiled.build_compiled", lambda *_: pytest.fail("built"))
    spec = GenerationSpec(views=2, size=32, sampler="lmc")
    with pytest.raises(UserError, match="unknown sampler"):
        _engine(distilled_folder, tmp_path, "compile", spec=spec)


def test_the_recipe_knows_all_that_code_depends_on(
    distilled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, shapes, precision, instructions, threads, libraries: each changes the key."""
    engine = _engine(distilled_folder, Path("unused"), "eager")
    model = engine._sampler._model
    work = Workload(model=model, weights="w", spec=SPEC, images=6)
    first = compile_recipe(work)
    assert compile_recipe(work) == first
    assert compile_recipe(replace(work, weights="other")) != first
    assert compile_recipe(replace(work, images=8)) != first
    monkeypatch.setattr(recipes, "cpu_capability", lambda: "AVX2")
    narrow = compile_recipe(work)
    assert narrow != first
    monkeypatch.setattr(recipes, "version", lambda name: "0")
    assert compile_recipe(work) != narrow


def test_the_layout_of_images_is_part_of_the_key_of_what_is_built(
    distilled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code takes its examples' strides for granted: with others it draws other images."""
    opened = open_model_folder(str(distilled_folder))
    model = load_family(opened, device=torch.device("cpu"), dtype=torch.bfloat16)
    keys = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        monkeypatch.setattr(recipes, "memory_format_of", lambda *_, found=memory_format: found)
        recipe = compile_recipe(Workload(model=model, weights="weights", spec=SPEC, images=6))
        keys.append(digest_of(recipe))
        latents_NCHW = torch.zeros(6, 4, 8, 8).contiguous(memory_format=memory_format)
        for layout in (recipe["unet"][0], recipe["decoder"]):
            assert layout[:2] == [[6, 4, 8, 8], list(latents_NCHW.stride())]
    assert keys[0] != keys[1]


def test_compiled_code_gets_images_in_the_layout_that_it_was_built_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever layout the loop has them in: strides and values as a plain copy has them."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        torch._inductor, "aoti_load_package", lambda path: lambda *inputs: seen.append(inputs[0])
    )
    forward = CompiledForward(tmp_path, torch.channels_last)
    images_NCHW = torch.rand(2, 4, 8, 8)
    text = Conditions(text_NTD=torch.zeros(2, 7, 5), guidance_NE=None, pooled_NP=None, time_ids_N6=None)
    forward.unet(images_NCHW, torch.ones(()), text)
    forward.decode(images_NCHW)
    for got in seen:
        assert got.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(got, images_NCHW)
