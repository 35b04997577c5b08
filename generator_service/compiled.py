"""The `compile` engine: UNet and decoder compiled ahead of time by torch's inductor, one static shape each.

torch.export → AOTInductor (on a CPU with weights frozen into its layouts) → unet.pt2, decoder.pt2 → Forward

Never executed: the same on a CUDA device.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generator_service.build_progress import BuildProgress
from generator_service.families import StableDiffusion
from generator_service.forward import Conditions, DecoderModule, UNetModule
from protocol.errors import UserError

UNET, DECODER = "unet.pt2", "decoder.pt2"


class CompiledForward:
    """Runs the packages that `build_compiled` left in a folder.

    Their code takes the strides of its inputs for those of the examples, and does not look: images in another
    layout would come out as others. So every input is brought into the examples' layout.
    """

    def __init__(self, folder: Path, memory_format: torch.memory_format) -> None:
        self._memory_format = memory_format
        self._unet = torch._inductor.aoti_load_package(str(folder / UNET))
        self._decoder = torch._inductor.aoti_load_package(str(folder / DECODER))

    def unet(self, x_NCHW: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """See `Forward.unet`."""
        rest = [tensor.contiguous() for tensor in conditions.tensors()]
        x_NCHW = x_NCHW.contiguous(memory_format=self._memory_format)
        output_NCHW: Tensor = self._unet(x_NCHW, timestep, *rest)
        return output_NCHW

    def decode(self, x0_NCHW: Tensor) -> Tensor:
        """See `Forward.decode`."""
        pixels_NCHW: Tensor = self._decoder(x0_NCHW.contiguous(memory_format=self._memory_format))
        return pixels_NCHW


def build_compiled(
    model: StableDiffusion,
    unet_inputs: tuple[Tensor, ...],
    latents_NCHW: Tensor,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Compiles both networks for these very shapes. Raises UserError without a compiler, or for a network
    that torch can't export."""
    for name, module, inputs in (
        (UNET, UNetModule(model), unet_inputs),
        (DECODER, DecoderModule(model), (latents_NCHW,)),
    ):
        what = f"compile: {name.partition('.')[0]} for {tuple(inputs[0].shape)}, which may take minutes"
        with BuildProgress(say, what):
            _compile(module, inputs, folder / name)


def _compile(module: torch.nn.Module, inputs: tuple[Tensor, ...], package: Path) -> None:
    options: dict[str, Any] = {"freezing": inputs[0].device.type == "cpu"}
    try:
        with torch.no_grad():
            program = torch.export.export(module.eval(), inputs, strict=False)
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(package), inductor_configs=options
            )
    except (
        Exception
    ) as error:  # exporter and compiler raise what they like; the reason is told, nothing hidden
        lines = str(error).strip().splitlines()
        raise UserError(
            "the engine cannot be built",
            expected="a network that torch exports, and a C++ compiler",
            got=lines[0] if lines else type(error).__name__,
            where="generator.engine = compile",
            mend="install g++, or choose the eager engine",
        ) from error
