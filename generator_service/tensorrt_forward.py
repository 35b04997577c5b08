"""Runs TensorRT plans on torch's tensors, on torch's stream. Never executed: it needs a CUDA device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generator_service.errors import OutOfDeviceMemoryError
from generator_service.forward import Conditions
from generator_service.onnx_export import OUTPUT, input_name
from generator_service.tensorrt_package import TensorRt
from protocol.errors import UserError

ADDRESS_BYTES = 256
"""Addresses are multiples of it, as those of torch's own allocations are."""


class TensorRtForward:
    """The plans `unet.plan` and `decoder.plan` of a folder."""

    def __init__(self, tensorrt: TensorRt, folder: Path, device: torch.device) -> None:
        """Raises UserError for plans that this device can't run."""
        self._device = device
        with torch.cuda.device(device):
            self._unet = LoadedPlan(tensorrt, folder / "unet.plan", device, self._stream)
            self._decoder = LoadedPlan(tensorrt, folder / "decoder.plan", device, self._stream)

    def unet(self, x_NCHW: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """See `Forward.unet`."""
        with torch.cuda.device(self._device):
            return self._unet(x_NCHW, timestep, *conditions.tensors())

    def decode(self, x0_NCHW: Tensor) -> Tensor:
        """See `Forward.decode`."""
        with torch.cuda.device(self._device):
            return self._decoder(x0_NCHW)

    def _stream(self) -> int:
        return int(torch.cuda.current_stream(self._device).cuda_stream)


class LoadedPlan:
    """One network of one static shape, called with tensors that lie where the plan reads them.

    It trusts addresses, so every input is checked against the plan's shape and type, and brought into plain
    row-major order. Inputs and output belong to the stream that the call is on, as torch's own do.
    """

    def __init__(
        self, tensorrt: TensorRt, plan: Path, device: torch.device, stream: Callable[[], int]
    ) -> None:
        """`stream` gives the handle to run on. Raises UserError."""
        trt, self._log = tensorrt.module, tensorrt.open_log()
        self._device, self._stream = device, stream
        # Engines outlive neither their runtime nor its log.
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise UserError(
                f"{tensorrt.package} {tensorrt.version} cannot load the plan",
                expected="a device and a driver that can run it",
                got=self._log.errors[0] if self._log.errors else "nothing",
                where=str(plan),
                mend="remove it with `streamrep engine clean`, and it is built again",
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            said = self._log.errors[0] if self._log.errors else "no execution context"
            raise OutOfDeviceMemoryError(str(device), self._shape(input_name(0))[0], said)
        dtypes = _torch_dtypes(trt)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self._layouts = {
            name: (self._shape(name), dtypes[self._engine.get_tensor_dtype(name)]) for name in names
        }

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The network's output, a new tensor."""
        shape, dtype = self._layouts[OUTPUT]
        output = torch.empty(shape, dtype=dtype, device=self._device)
        # They stay referenced until the work is on the stream: only then may torch use their memory again.
        bound = {OUTPUT: output}
        for index, tensor in enumerate(inputs):
            bound[input_name(index)] = self._bindable(input_name(index), tensor)
        for name, tensor in bound.items():
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(self._stream()):
            raise RuntimeError(f"TensorRT: {self._log.errors[-1] if self._log.errors else 'not enqueued'}")
        return output

    def _bindable(self, name: str, tensor: Tensor) -> Tensor:
        got = (tuple(tensor.shape), tensor.dtype)
        if got != self._layouts.get(name):
            raise ValueError(f"{name}: expected {self._layouts.get(name)}, got {got}")
        tensor = tensor.contiguous()
        # A step's time is an element in the middle of the plan's tensor.
        return tensor if tensor.data_ptr() % ADDRESS_BYTES == 0 else tensor.clone()

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._engine.get_tensor_shape(name))


def _torch_dtypes(trt: Any) -> dict[Any, torch.dtype]:
    return {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT64: torch.int64,
    }


def check_device(device: torch.device, where: str) -> None:
    """Raises UserError for one that TensorRT can't run on."""
    if device.type != "cuda":
        raise UserError(
            "the engine cannot run here",
            expected="a CUDA device",
            got=device.type,
            where=where,
            mend="run it where there is one, or choose another engine",
        )
