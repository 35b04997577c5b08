"""Which device computes, in which arithmetic, and what it is called."""

import platform
from pathlib import Path

import torch

from protocol.errors import UserError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(device: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU. Raises UserError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    there = chosen.type == "cpu" or (
        chosen.type == "cuda" and (chosen.index or 0) < torch.cuda.device_count()
    )
    if not there:
        raise UserError(
            "no such device",
            expected=f"auto, cpu or one of {torch.cuda.device_count()} CUDA devices",
            got=device,
            where="generator.device",
            mend="choose another with --generator.device",
        )
    return chosen


def resolve_dtype(precision: str, device: torch.device) -> torch.dtype:
    """`auto` is float16 on CUDA, bfloat16 on a CPU that multiplies it in hardware, else float32."""
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        return torch.float16
    capabilities = torch.cpu.get_capabilities()
    in_hardware = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") or capabilities.get("bf16")
    return torch.bfloat16 if in_hardware else torch.float32


def device_name(device: torch.device) -> str:
    """The model of the device, for people and for the engine hash."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_model() or platform.processor() or platform.machine()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux: platform knows the name there
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
