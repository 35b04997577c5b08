"""Which engine draws: the one that was named, or for `auto` the fastest that is worth it, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from generator_service.config import GeneratorConfig
from generator_service.devices import device_name
from generator_service.engine import Abandoned
from generator_service.engine_cache import EngineCache
from generator_service.families import StableDiffusion, memory_format_of
from generator_service.forward import Forward, PlainForward
from generator_service.sampler import latent_shape, takes_two_passes
from protocol.errors import UserError
from protocol.generation import GenerationSpec

LIBRARIES = ("torch", "diffusers", "transformers")


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
    cache, recipe = EngineCache(Path(config.engine_cache)), recipe_of(model, weights, spec, images)
    cached = cache.find(recipe) is not None
    why = "as asked"
    if config.engine == "auto":
        if model.device.type != "cpu":
            why = "compile has never been executed on this kind of device"
            return Chosen(name="eager", forward=PlainForward(model), digest="", why=why)
        if not cached:
            why = "compile is not built: `streamrep engine build` does so"
            return Chosen(name="eager", forward=PlainForward(model), digest="", why=why)
        why = "compile is the fastest of those that work, and built"

    def build(folder: Path) -> None:
        from generator_service.compiled import build_compiled

        unet_inputs, latents_NCHW = example_inputs(model, spec, images)
        build_compiled(model, unet_inputs, latents_NCHW, folder, say)

    from generator_service.compiled import CompiledForward

    folder, built = cache.make(recipe, build, abandoned)
    forward = CompiledForward(folder, memory_format_of(model.device, model.dtype))
    return Chosen(name="compile", forward=forward, digest=built.digest, why=why)


def recipe_of(model: StableDiffusion, weights: str, spec: GenerationSpec, images: int) -> dict[str, Any]:
    """All that a compiled engine depends on: the key of the cache."""
    unet_inputs, latents_NCHW = example_inputs(model, spec, images)
    cuda = model.device.type == "cuda"
    return {
        "engine": "compile",
        "weights": weights,
        "unet": [_layout(tensor) for tensor in unet_inputs],
        "decoder": _layout(latents_NCHW),
        "device": device_name(model.device),
        "capability": list(torch.cuda.get_device_capability(model.device)) if cuda else cpu_capability(),
        "cuda": torch.version.cuda if cuda else None,
        # Sums are shared out among threads when the code is written.
        "threads": 0 if cuda else torch.get_num_threads(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _layout(tensor: torch.Tensor) -> list[Any]:
    """What code compiled for it takes for granted."""
    return [list(tensor.shape), list(tensor.stride()), str(tensor.dtype)]


def cpu_capability() -> str:
    """The vector instructions that the code may use."""
    return torch.backends.cpu.get_cpu_capability()


def example_inputs(
    model: StableDiffusion, spec: GenerationSpec, images: int
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Zeros shaped as the loop's: what `UNetModule` takes, and latents for the decoder."""
    rows = 2 * images if takes_two_passes(model, spec) else images
    options: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
    latent_CHW = latent_shape(model, spec)
    memory_format = memory_format_of(model.device, model.dtype)
    x_NCHW = torch.zeros((rows, *latent_CHW), **options).contiguous(memory_format=memory_format)
    whole = spec.sampler in ("ddim", "lcm", "dpm++")
    timestep = torch.ones((), device=model.device, dtype=torch.int64 if whole else torch.float32)
    tokens: int = model.text_encoders[0].tokenizer.model_max_length or 0
    width = int(model.unet.config.cross_attention_dim)
    inputs = [x_NCHW, timestep, torch.zeros((rows, tokens, width), **options)]
    if model.embeds_guidance:
        inputs.append(torch.zeros((rows, model.unet.config.time_cond_proj_dim), **options))
    if model.is_xl:
        pooled = int(model.text_encoders[1].model.config.projection_dim or 0)
        inputs += [torch.zeros((rows, pooled), **options), torch.zeros((rows, 6), **options)]
    latents_NCHW = torch.zeros((images, *latent_CHW), **options).contiguous(memory_format=memory_format)
    return tuple(inputs), latents_NCHW


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
