"""Which engine draws: the one that was named, or for `auto` the fastest that is worth it, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from generator_service.config import GeneratorConfig
from generator_service.engine import Abandoned
from generator_service.engine_cache import EngineCache
from generator_service.families import StableDiffusion, memory_format_of
from generator_service.forward import Forward, PlainForward
from generator_service.making import Making
from generator_service.recipes import Workload, compile_recipe
from protocol.errors import UserError
from protocol.generation import GenerationSpec


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """`digest` names the built files, empty where nothing was built; `why` is for people."""

    name: str
    forward: Forward
    digest: str
    why: str


def choose(
    config: GeneratorConfig,
    model: StableDiffusion,
    weights: str,
    spec: GenerationSpec,
    images: int,
    abandoned: Abandoned,
    say: Callable[[str], None],
) -> Chosen:
    """The engine for a static batch of `images`. Raises UserError when the one named can't be had."""
    if config.engine == "eager":
        return Chosen(name="eager", forward=PlainForward(model), digest="", why="as asked")
    if config.engine == "xformers":
        _use_xformers(model)
        return Chosen(name="xformers", forward=PlainForward(model), digest="", why="as asked")
    cache = EngineCache(Path(config.engine_cache))
    work = Workload(model=model, weights=weights, spec=spec, images=images)
    name, why = config.engine, "as asked"
    if config.engine == "auto":
        if model.device.type != "cpu":
            why = "compile, tensorrt and torch-tensorrt have never been executed on this kind of device"
            return Chosen(name="eager", forward=PlainForward(model), digest="", why=why)
        if cache.find(compile_recipe(work)) is None:
            why = "compile is not built: `streamrep engine build` does so"
            return Chosen(name="eager", forward=PlainForward(model), digest="", why=why)
        name, why = "compile", "compile is the fastest of those that work, and built"
    making = _making(name, work, cache, abandoned, say)
    folder, built = cache.make(making.recipe, making.build, abandoned)
    return Chosen(name=name, forward=making.load(folder), digest=built.digest, why=why)


def _making(
    name: str, work: Workload, cache: EngineCache, abandoned: Abandoned, say: Callable[[str], None]
) -> Making:
    if name == "tensorrt":
        from generator_service.tensorrt_making import target_here, tensorrt_making

        return tensorrt_making(work, target_here(work, cache), cache, abandoned, say)
    if name == "torch-tensorrt":
        from generator_service.torch_tensorrt_making import torch_tensorrt_making

        return torch_tensorrt_making(work, say)
    return _compile_making(work, say)


def _compile_making(work: Workload, say: Callable[[str], None]) -> Making:
    from generator_service.compiled import CompiledForward, build_compiled

    memory_format = memory_format_of(work.model.device, work.model.dtype)
    return Making(
        recipe=compile_recipe(work),
        build=lambda folder: build_compiled(work.model, *work.example_inputs(), folder, say),
        load=lambda folder: CompiledForward(folder, memory_format),
    )


def _use_xformers(model: StableDiffusion) -> None:
    """Never executed: it needs a CUDA device."""
    try:
        model.unet.enable_xformers_memory_efficient_attention()
    except (ImportError, ValueError, RuntimeError, NotImplementedError) as error:
        lines = str(error).splitlines()
        raise UserError(
            "the engine cannot be built",
            expected="the package xformers and a CUDA device",
            got=lines[0] if lines else type(error).__name__,
            where="generator.engine = xformers",
            mend="pip install 'streamrep[gpu]' on a machine with CUDA, or choose another engine",
        ) from error
