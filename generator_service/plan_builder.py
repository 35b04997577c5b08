"""ONNX → TensorRT plan, by either package."""

from pathlib import Path
from typing import Any

from generator_service.build_progress import BuildProgress
from generator_service.engine import Abandoned
from generator_service.errors import DrawAbandonedError
from generator_service.tensorrt_package import WHERE, Capability, TensorRt, dotted, first_line
from protocol.errors import UserError


def build_plan(
    tensorrt: TensorRt,
    source: Path,
    plan: Path,
    capability: Capability,
    abandoned: Abandoned,
    progress: BuildProgress,
) -> None:
    """Builds `plan` from an ONNX file for devices of a compute capability.

    Raises UserError for a network that can't be built, DrawAbandonedError once `abandoned` answers true.
    """
    trt, log = tensorrt.module, tensorrt.open_log()
    try:
        builder = trt.Builder(log)
    except Exception as error:  # the bindings raise TypeError where the library gives nothing
        raise _refusal(tensorrt, "a driver and a GPU", _said(log, first_line(error))) from error
    # Types are those of the ONNX file. From version 11 on there is nothing else, and the flag is ignored.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)  # holds the network's weights until the plan is built
    if not parser.parse_from_file(str(source)):
        said = parser.get_error(0).desc() if parser.num_errors else _said(log, "nothing")
        raise _refusal(tensorrt, f"{source.name} in operators that it knows", said)
    config = builder.create_builder_config()
    if tensorrt.offered:
        _set_capability(tensorrt, config, capability)
    config.progress_monitor = _watch(tensorrt, progress, abandoned)
    built = builder.build_serialized_network(network, config)
    if built is None:
        if abandoned():
            raise DrawAbandonedError("while the engine was built")
        expected = f"a network that it builds for compute capability {dotted(capability)}"
        raise _refusal(tensorrt, expected, _said(log, "no plan"))
    plan.write_bytes(built)


def _set_capability(tensorrt: TensorRt, config: Any, capability: Capability) -> None:
    check_capability(tensorrt, capability)
    major, minor = capability
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(tensorrt.module.ComputeCapability, f"SM{major}{minor}"), 0)


def check_capability(tensorrt: TensorRt, capability: Capability) -> None:
    """Raises UserError for one that the package doesn't offer."""
    if capability not in tensorrt.offered:
        offered = ", ".join(map(dotted, tensorrt.offered)) or "that of the GPU at hand"
        raise UserError(
            f"{tensorrt.package} {tensorrt.version} does not build for this compute capability",
            expected=offered,
            got=dotted(capability),
            where=WHERE,
            mend="choose another capability or engine",
        )


def _watch(tensorrt: TensorRt, progress: BuildProgress, abandoned: Abandoned) -> Any:
    trt = tensorrt.module

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]  # neither package ships types
        """Called by the builder's threads. Phases lie in one another; the innermost is told."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            progress.at(f"{phase}, {steps} steps")

        def step_complete(self, phase: str, step: int) -> bool:
            progress.at(f"{phase}, step {step + 1} of {self._steps.get(phase, step + 1)}")
            return not abandoned()

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()


def _said(log: Any, otherwise: str) -> str:
    return log.errors[0] if log.errors else otherwise


def _refusal(tensorrt: TensorRt, expected: str, got: str) -> UserError:
    return UserError(
        f"{tensorrt.package} {tensorrt.version} cannot build the plan",
        expected=expected,
        got=got,
        where=WHERE,
        mend="choose another precision, capability or engine",
    )
