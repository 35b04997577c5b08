"""Plans on torch's tensors. Without a GPU a stand-in for the bindings reads inputs at the addresses that it
is given, computes with onnxruntime, and writes the output where it is told to."""

import ctypes
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.families import load_family
from generator_service.forward import UNetModule
from generator_service.model_folder import open_model_folder
from generator_service.onnx_export import export_network
from generator_service.recipes import Workload
from generator_service.tensorrt_forward import LoadedPlan
from generator_service.tensorrt_package import TensorRt
from protocol.errors import UserError
from protocol.generation import GenerationSpec

SPEC = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(1.0, 3.0))
STREAM = 1234
CPU_ADDRESS_BYTES = 64
"""What torch's allocations on a CPU are multiples of."""
CPU = torch.device("cpu")
_NUMPY = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class _Log:
    class Severity:
        ERROR = 1


@dataclass
class _Context:
    """As IExecutionContext."""

    session: onnxruntime.InferenceSession
    addresses: dict[str, int] = field(default_factory=dict)
    streams: list[int] = field(default_factory=list)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % CPU_ADDRESS_BYTES == 0
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.streams.append(stream)
        inputs = {node.name: self._at(node) for node in self.session.get_inputs()}
        (output,) = self.session.run(["output"], inputs)
        self._at(self.session.get_outputs()[0])[...] = output
        return True

    def _at(self, node: Any) -> np.ndarray:
        dtype = np.dtype(_NUMPY[node.type])
        nbytes = dtype.itemsize * int(np.prod(node.shape, dtype=int))
        memory = (ctypes.c_char * nbytes).from_address(self.addresses[node.name])
        return np.frombuffer(memory, dtype=dtype).reshape(node.shape)


class _Engine:
    """As ICudaEngine, of an ONNX file in the place of a plan."""

    def __init__(self, onnx: bytes) -> None:
        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self._nodes = {node.name: node for node in (*self.session.get_outputs(), *self.session.get_inputs())}
        self.num_io_tensors = len(self._nodes)

    def create_execution_context(self) -> _Context:
        return _Context(self.session)

    def get_tensor_name(self, index: int) -> str:
        return list(self._nodes)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return self._nodes[name].shape

    def get_tensor_dtype(self, name: str) -> str:
        return self._nodes[name].type


def _stand_in(engine: Any) -> TensorRt:
    module = SimpleNamespace(
        __version__="0",
        ILogger=_Log,
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=engine),
        DataType=SimpleNamespace(
            FLOAT="tensor(float)", HALF="tensor(float16)", BF16="tensor(bfloat16)", INT64="tensor(int64)"
        ),
    )
    return TensorRt(package="tensorrt_rtx", module=module)


@pytest.fixture(scope="module")
def work(distilled_folder: Path) -> Workload:
    """A tiny model in float32."""
    model = load_family(open_model_folder(str(distilled_folder)), device=CPU, dtype=torch.float32)
    return Workload(model=model, weights="w", spec=SPEC, images=2)


@pytest.fixture(scope="module")
def plan(work: Workload, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its UNet."""
    file = tmp_path_factory.mktemp("plan") / "unet.plan"
    export_network(UNetModule(work.model), work.example_inputs()[0], file)
    return file


def _inputs(work: Workload) -> list[torch.Tensor]:
    torch.manual_seed(5)
    x_NCHW, _, *rest = (torch.randn(tensor.shape) for tensor in work.example_inputs()[0])
    return [x_NCHW, torch.tensor([999, 499, 7])[1], *rest]


def test_inputs_are_bound_in_order_whatever_their_layout(work: Workload, plan: Path) -> None:
    """Channels last, and a time that is an element in the middle of others, as the loop has them."""
    loaded = LoadedPlan(_stand_in(_Engine), plan, CPU, lambda: STREAM)
    inputs = _inputs(work)
    with torch.no_grad():
        wanted_NCHW = UNetModule(work.model)(*inputs)
    got_NCHW = loaded(inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])
    assert (got_NCHW - wanted_NCHW).abs().max() < 1e-5 * wanted_NCHW.abs().max()
    again_NCHW = loaded(*(2 * tensor for tensor in inputs))
    assert again_NCHW.data_ptr() != got_NCHW.data_ptr()
    assert loaded._context.streams == [STREAM, STREAM]


def test_another_shape_or_type_never_reaches_the_plan(work: Workload, plan: Path) -> None:
    """It would read past the end of the tensor."""
    loaded = LoadedPlan(_stand_in(_Engine), plan, CPU, lambda: STREAM)
    inputs = _inputs(work)
    for wrong in (inputs[0][:1], inputs[0].double()):
        with pytest.raises(ValueError, match="input_0: expected "):
            loaded(wrong, *inputs[1:])
    assert loaded._context.streams == []


def test_a_plan_that_the_device_cannot_load_is_one_line(plan: Path) -> None:
    """With what the runtime said of it."""
    with pytest.raises(UserError, match="cannot load the plan: expected a device and a driver"):
        LoadedPlan(_stand_in(lambda data: None), plan, CPU, lambda: STREAM)


@pytest.mark.parametrize("engine", ["tensorrt", "torch-tensorrt"])
def test_engines_for_cuda_refuse_a_cpu(distilled_folder: Path, tmp_path: Path, engine: str) -> None:
    """With what they want, and nothing built."""
    config = GeneratorConfig(
        engine=engine, engine_cache=str(tmp_path), batch_images=2, device="cpu", precision="float32"
    )
    opened = open_model_folder(str(distilled_folder))
    with pytest.raises(UserError, match=f"generator.engine = {engine}: .* CUDA"):
        DiffusionEngine(config, opened, "w", SPEC, lambda: False)
    assert list(tmp_path.iterdir()) == []
