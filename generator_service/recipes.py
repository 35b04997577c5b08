"""What built engines depend on: the keys of the cache, and the shapes that they are built for."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from generator_service.devices import device_name
from generator_service.families import StableDiffusion, memory_format_of
from generator_service.sampler import latent_shape, takes_two_passes
from protocol.generation import GenerationSpec

LIBRARIES = ("torch", "diffusers", "transformers")
EXPORTERS = ("onnx", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an engine is built for. `weights` is the folder's digest, `images` the static batch."""

    model: StableDiffusion
    weights: str
    spec: GenerationSpec
    images: int

    def example_inputs(self) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """See the function."""
        return example_inputs(self.model, self.spec, self.images)


def compile_recipe(work: Workload) -> dict[str, Any]:
    """All that code compiled by torch's inductor depends on."""
    return native_recipe("compile", work, {name: version(name) for name in LIBRARIES})


def native_recipe(engine: str, work: Workload, libraries: dict[str, str]) -> dict[str, Any]:
    """All that code for the workload's own device depends on, made by these libraries."""
    unet_inputs, latents_NCHW = work.example_inputs()
    device = work.model.device
    cuda = device.type == "cuda"
    return {
        "engine": engine,
        "weights": work.weights,
        "unet": [_layout(tensor) for tensor in unet_inputs],
        "decoder": _layout(latents_NCHW),
        "device": device_name(device),
        "capability": list(torch.cuda.get_device_capability(device)) if cuda else cpu_capability(),
        "cuda": torch.version.cuda if cuda else None,
        # Sums are shared out among threads when the code is written.
        "threads": 0 if cuda else torch.get_num_threads(),
        "libraries": libraries,
    }


def onnx_recipe(work: Workload) -> dict[str, Any]:
    """All that the ONNX files depend on; no device is among it, since they are exported on a CPU."""
    unet_inputs, latents_NCHW = work.example_inputs()
    return {
        "engine": "onnx",
        "weights": work.weights,
        "unet": [_layout(tensor.contiguous()) for tensor in unet_inputs],
        "decoder": _layout(latents_NCHW.contiguous()),
        "device": "any",
        # The local part of a version, such as +cpu, names a build of torch for a device.
        "libraries": {name: version(name).partition("+")[0] for name in (*LIBRARIES, *EXPORTERS)},
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
