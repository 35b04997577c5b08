"""Energy counters: what a machine's files or NVIDIA's library say, in joules."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.energy import energy_counter

CPU = torch.device("cpu")


def _zone(powercap: Path, name: str, microjoules: int, full: int = 1_000_000) -> Path:
    zone = powercap / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n", "utf-8")
    (zone / "max_energy_range_uj").write_text(f"{full}\n", "utf-8")
    return zone


def test_packages_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    """Two packages; one has a part of its own, which it counts already."""
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        _zone(tmp_path, name, 100)
    joules = energy_counter(CPU, tmp_path)
    assert joules is not None
    assert joules() == 0.0
    _zone(tmp_path, "intel-rapl:0", 250_100)
    _zone(tmp_path, "intel-rapl:1", 500_100)
    _zone(tmp_path, "intel-rapl:0:0", 900_000)
    assert joules() == pytest.approx(0.75)


def test_a_counter_that_was_full_goes_on(tmp_path: Path) -> None:
    """From 0.9 J over the end at 1 J to 0.2 J are 0.3 J."""
    _zone(tmp_path, "intel-rapl:0", 900_000)
    joules = energy_counter(CPU, tmp_path)
    assert joules is not None
    _zone(tmp_path, "intel-rapl:0", 200_000)
    assert joules() == pytest.approx(0.3)
    _zone(tmp_path, "intel-rapl:0", 300_000)
    assert joules() == pytest.approx(0.4)


def test_where_nobody_tells_there_is_no_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No packages, one that can't be read, no library, or a GPU that does not count."""
    assert energy_counter(CPU, tmp_path) is None
    (_zone(tmp_path, "intel-rapl:0", 1) / "energy_uj").unlink()
    assert energy_counter(CPU, tmp_path) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_counter(torch.device("cuda")) is None

    class NVMLError(Exception):
        """As pynvml's."""

    def refuse() -> None:
        raise NVMLError

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=refuse, NVMLError=NVMLError))
    assert energy_counter(torch.device("cuda")) is None


def test_a_gpus_counter_is_that_of_torchs_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by its UUID, since torch and NVML number devices differently; millijoules there, joules here."""
    counters = {"GPU-aa": 5_000, "GPU-bb": 7_000}
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=counters.__getitem__,
        NVMLError=RuntimeError,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="bb"))
    joules = energy_counter(torch.device("cuda:1"))
    assert joules is not None
    assert joules() == 7.0
    counters["GPU-bb"] = 9_500
    assert joules() == 9.5
