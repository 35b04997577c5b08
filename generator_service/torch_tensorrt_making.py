"""The `torch-tensorrt` engine: torch.export → torch_tensorrt.dynamo.compile → unet.ep, decoder.ep → Forward.

torch_tensorrt asks CUDA at its import, so without a driver it can't even be imported. Never executed.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generator_service.build_progress import BuildProgress
from generator_service.families import memory_format_of
from generator_service.forward import Conditions, DecoderModule, UNetModule
from generator_service.making import Making
from generator_service.recipes import LIBRARIES, Workload, native_recipe
from generator_service.tensorrt_forward import check_device
from generator_service.tensorrt_package import first_line
from protocol.errors import UserError

WHERE = "generator.engine = torch-tensorrt"


def torch_tensorrt_making(work: Workload, say: Callable[[str], None]) -> Making:
    """See `Making`. Raises UserError where torch_tensorrt can't be imported."""
    torch_tensorrt = import_torch_tensorrt()
    check_device(work.model.device, WHERE)
    libraries = {name: version(name) for name in LIBRARIES}
    for builder in (torch_tensorrt, importlib.import_module("tensorrt")):
        libraries[builder.__name__] = str(builder.__version__)
    memory_format = memory_format_of(work.model.device, work.model.dtype)
    return Making(
        recipe=native_recipe("torch-tensorrt", work, libraries),
        build=lambda folder: _build(torch_tensorrt, work, folder, say),
        load=lambda folder: TorchTensorRtForward(folder, memory_format),
    )


def import_torch_tensorrt() -> Any:
    """The module. Raises UserError."""
    try:
        return importlib.import_module("torch_tensorrt")
    except Exception as error:  # without a driver it raises whatever CUDA says
        raise UserError(
            "the engine cannot be built",
            expected="the package torch-tensorrt and a CUDA driver, which it asks at its import",
            got=first_line(error),
            where=WHERE,
            mend="pip install 'streamrep[tensorrt]' on a machine with CUDA, or choose another engine",
        ) from error


class TorchTensorRtForward:
    """Runs the programs that `torch_tensorrt_making` left in a folder, whose operators its import brings."""

    def __init__(self, folder: Path, memory_format: torch.memory_format) -> None:
        self._memory_format = memory_format
        self._unet, self._decoder = (
            torch.export.load(folder / file).module() for file in ("unet.ep", "decoder.ep")
        )

    def unet(self, x_NCHW: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """See `Forward.unet`."""
        x_NCHW = x_NCHW.contiguous(memory_format=self._memory_format)
        output_NCHW: Tensor = self._unet(x_NCHW, timestep, *conditions.tensors())
        return output_NCHW

    def decode(self, x0_NCHW: Tensor) -> Tensor:
        """See `Forward.decode`."""
        pixels_NCHW: Tensor = self._decoder(x0_NCHW.contiguous(memory_format=self._memory_format))
        return pixels_NCHW


def _build(torch_tensorrt: Any, work: Workload, folder: Path, say: Callable[[str], None]) -> None:
    unet_inputs, latents_NCHW = work.example_inputs()
    for name, module, inputs in (
        ("unet", UNetModule(work.model), unet_inputs),
        ("decoder", DecoderModule(work.model), (latents_NCHW,)),
    ):
        with BuildProgress(say, f"torch-tensorrt: {name} for {tuple(inputs[0].shape)}"):
            _compile(torch_tensorrt, module, inputs, folder / f"{name}.ep")


def _compile(torch_tensorrt: Any, module: torch.nn.Module, inputs: tuple[Tensor, ...], program: Path) -> None:
    timings = program.with_suffix(".timings")  # its default is a file in /tmp that all share
    try:
        with torch.no_grad():
            exported = torch.export.export(module.eval(), inputs, strict=False)
            compiled = torch_tensorrt.dynamo.compile(
                exported,
                arg_inputs=inputs,
                device=inputs[0].device,
                # True would turn any mask into a causal one.
                attn_bias_is_causal=False,
                timing_cache_path=str(timings),
            )
            torch_tensorrt.save(compiled, str(program), arg_inputs=inputs)
    except Exception as error:  # exporter and compiler raise what they like; the reason is told
        raise UserError(
            "the engine cannot be built",
            expected="a network that torch-tensorrt compiles",
            got=first_line(error),
            where=WHERE,
            mend="choose another engine",
        ) from error
    timings.unlink(missing_ok=True)
