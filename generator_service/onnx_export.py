"""UNet and decoder as ONNX files of one static shape: what TensorRT's plans are built from.

    unet.onnx      input_0: x_NCHW, input_1: timestep, input_2: text_NTD, then those of `Conditions.tensors`
    decoder.onnx   input_0: x0_NCHW                                           each: one tensor named output

The export runs on a copy on the CPU wherever the model is, so that the files are the same on every machine.
Weights of more than 1.5 GiB lie beside their file in FILE.data: protobuf holds no more than 2.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generator_service.build_progress import BuildProgress
from generator_service.forward import DecoderModule, UNetModule
from generator_service.recipes import Workload, onnx_recipe
from protocol.errors import UserError

NETWORKS = ("unet", "decoder")
OUTPUT = "output"


def input_name(index: int) -> str:
    """Of the inputs in the order of the network's arguments."""
    return f"input_{index}"


def export_networks(work: Workload, folder: Path, say: Callable[[str], None]) -> None:
    """Writes both files. Raises UserError for a network that torch can't export, or without the packages."""
    unet_inputs, latents_NCHW = work.example_inputs()
    modules = (UNetModule(work.model), DecoderModule(work.model))
    for name, module, inputs in zip(NETWORKS, modules, (unet_inputs, (latents_NCHW,)), strict=True):
        with BuildProgress(say, f"onnx: {name} for {tuple(inputs[0].shape)}"):
            export_network(module, inputs, folder / f"{name}.onnx")


def export_network(module: torch.nn.Module, inputs: Sequence[Tensor], file: Path) -> None:
    """See `export_networks`."""
    on_cpu = tuple(tensor.cpu().contiguous() for tensor in inputs)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # torch's exporter uses what torch itself deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            # It misses torchvision, whose operators these networks don't have, four times a network.
            logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
            program = torch.onnx.export(
                _copy_to_cpu(module).eval(),
                on_cpu,
                dynamo=True,
                verbose=False,
                input_names=[input_name(index) for index in range(len(on_cpu))],
                output_names=[OUTPUT],
            )
        assert program is not None  # with dynamo=True, as its documentation has it
        program.save(str(file))
    except ImportError as error:
        raise _refusal("the packages onnx and onnxscript", str(error), _INSTALL) from error
    except Exception as error:  # the exporter raises what it likes; the reason is told
        lines = str(error).strip().splitlines()
        got = lines[0] if lines else type(error).__name__
        raise _refusal("a network that torch exports", got, "choose the eager engine") from error


def onnx_making_recipe(work: Workload) -> dict[str, Any]:
    """The key of the files. Raises UserError without the packages, whose versions are part of it."""
    try:
        return onnx_recipe(work)
    except ImportError as error:  # PackageNotFoundError is one
        raise _refusal("the packages onnx and onnxscript", str(error), _INSTALL) from error


def _copy_to_cpu(module: torch.nn.Module) -> torch.nn.Module:
    """Tensors are replaced while copying, so that the device never holds two of them."""
    kept: dict[int, Any] = {}
    for parameter in module.parameters():
        values = parameter.detach().cpu().contiguous()
        kept[id(parameter)] = torch.nn.Parameter(values, requires_grad=False)
    for buffer in module.buffers():
        kept[id(buffer)] = buffer.detach().cpu().contiguous()
    return copy.deepcopy(module, kept)


_INSTALL = "pip install 'streamrep[rtx]', or choose another engine"


def _refusal(expected: str, got: str, mend: str) -> UserError:
    return UserError(
        "the network cannot be exported to ONNX",
        expected=expected,
        got=got,
        where="generator.engine = tensorrt",
        mend=mend,
    )
