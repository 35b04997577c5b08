"""Energy that a device has taken, where its driver tells: NVML of a GPU, Linux's powercap of CPU packages."""

from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")

Joules = Callable[[], float]
"""Since some moment; it only grows."""


def energy_counter(device: torch.device, powercap: Path = POWERCAP) -> Joules | None:
    """Of that GPU alone, or of all the machine's CPU packages. None where nobody tells."""
    return _gpu_counter(device) if device.type == "cuda" else _packages_counter(powercap)


def _gpu_counter(device: torch.device) -> Joules | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return None  # a GPU from before Volta, or a driver that keeps it to itself
    return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def _packages_counter(powercap: Path) -> Joules | None:
    """`intel-rapl:0`, `intel-rapl:1`, ... are packages, AMD's as well; `intel-rapl:0:0` is a part of one."""
    packages = [Package(zone) for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    try:
        for package in packages:
            package.joules()
    except OSError:
        return None  # read by root alone, on most machines
    return (lambda: sum(package.joules() for package in packages)) if packages else None


class Package:
    """One package, whose counter begins again at 0 when it is full. To be read more often than that."""

    def __init__(self, zone: Path) -> None:
        self._zone = zone
        self._last_microjoules: int | None = None
        self._microjoules = 0

    def joules(self) -> float:
        """Since the first call. Raises OSError where it may not be read."""
        now = self._read("energy_uj")
        if self._last_microjoules is not None:
            grown = now - self._last_microjoules
            self._microjoules += grown if grown >= 0 else grown + self._read("max_energy_range_uj")
        self._last_microjoules = now
        return self._microjoules / 1e6

    def _read(self, name: str) -> int:
        return int((self._zone / name).read_text("utf-8"))
