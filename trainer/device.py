"""Which device and arithmetic the encoder trains in."""

import torch

from protocol.errors import UserError
from trainer.config import TrainConfig


def resolve_device(config: TrainConfig) -> torch.device:
    """`auto` is CUDA where there is one. Raises UserError for a device that isn't there. Sets CPU threads."""
    if config.threads:
        torch.set_num_threads(config.threads)
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            "no such device",
            expected="auto, cpu, cuda or cuda:N",
            got=f"{name} ({str(error).splitlines()[0]})",
            where="train.device",
            mend="use --train.device cpu",
        ) from error
    return device


def resolve_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The autocast type; float32 means none. `auto` is bfloat16 where hardware multiplies it."""
    if config.precision != "auto":
        return torch.float32 if config.precision == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
