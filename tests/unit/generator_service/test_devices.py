"""Devices and arithmetic."""

import pytest
import torch

from generator_service.devices import device_name, resolve_device, resolve_dtype
from protocol.errors import UserError


@pytest.mark.parametrize("device", ["tpu", "meta", "cuda:99"])
def test_refuses_a_device_that_is_not_there(device: str) -> None:
    """One line with what there is."""
    with pytest.raises(UserError, match=f"got {device}; choose another"):
        resolve_device(device)


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without bfloat16 multiplication computes in float32 unless told otherwise."""
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert resolve_dtype("auto", cpu) == torch.float32
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": True})
    assert resolve_dtype("auto", cpu) == torch.bfloat16
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16


def test_the_cpu_has_a_name() -> None:
    """It tells machines apart in the engine hash."""
    assert device_name(resolve_device("cpu"))
