"""The two packages that build and run TensorRT plans, `tensorrt` and `tensorrt_rtx`, driven by one code.

| | tensorrt | tensorrt_rtx |
|---|---|---|
| installed by | streamrep[tensorrt] | streamrep[rtx] |
| builds | for the GPU at hand | for compute capabilities that it offers, without a GPU |
| a plan runs on | the device model it was built on | devices of its capability, compiled when loaded |
"""

import importlib
from dataclasses import dataclass
from typing import Any

from protocol.errors import UserError

PACKAGES = ("tensorrt", "tensorrt_rtx")
"""In the order of preference."""
WHERE = "generator.engine = tensorrt"
Capability = tuple[int, int]
"""Of a CUDA device, (8, 9) for 8.9."""


@dataclass(frozen=True, kw_only=True)
class TensorRt:
    """One of them, imported."""

    package: str
    module: Any

    @property
    def version(self) -> str:
        """A plan runs on no other."""
        return str(self.module.__version__)

    @property
    def offered(self) -> tuple[Capability, ...]:
        """Compute capabilities that it can be told to build for; none where it builds for the GPU at hand."""
        known = getattr(self.module, "ComputeCapability", None)
        names = () if known is None else known.__members__
        return tuple(divmod(int(name[2:]), 10) for name in names if name.startswith("SM"))

    def open_log(self) -> Any:
        """A logger that keeps errors in its list `errors`, first first, and drops what is less."""
        trt = self.module

        class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # neither package ships types
            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.errors: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if int(severity) <= int(trt.ILogger.Severity.ERROR):
                    self.errors.append(message)

        return Log()


def import_packages() -> tuple[TensorRt, ...]:
    """Those that can be imported, the preferred first. Raises UserError where none can."""
    found: list[TensorRt] = []
    reasons: list[str] = []
    for package in PACKAGES:
        try:
            found.append(TensorRt(package=package, module=importlib.import_module(package)))
        except Exception as error:  # missing libraries come as errors of any kind
            reasons.append(f"{package}: {first_line(error)}")
    if not found:
        raise UserError(
            "the engine cannot be built",
            expected="the package tensorrt or tensorrt_rtx",
            got="; ".join(reasons),
            where=WHERE,
            mend="pip install 'streamrep[tensorrt]' or 'streamrep[rtx]', or choose another engine",
        )
    return tuple(found)


def dotted(capability: Capability) -> str:
    """8.9, as NVIDIA writes it."""
    return f"{capability[0]}.{capability[1]}"


def first_line(error: BaseException) -> str:
    """Of what an error says, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
