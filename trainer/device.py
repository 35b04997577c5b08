"""Which device and arithmetic the encoder trains in."""

import msgspec
import torch

from protocol.errors import UserError
from trainer.config import TrainConfig, TrainerConfig
from trainer.rank_group import RankGroup


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
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            config.precision
        ]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def on_own_device(config: TrainerConfig, ranks: RankGroup) -> TrainerConfig:
    """Of several ranks each takes a GPU of its own, as `train.device` has to leave open. Raises UserError."""
    name = config.train.device
    if ranks.world == 1 or name == "cpu" or not torch.cuda.is_available():
        return config
    if name not in ("auto", "cuda") or ranks.local_rank >= torch.cuda.device_count():
        raise UserError(
            "no GPU for this rank",
            expected=f"auto or cuda, and more GPUs than LOCAL_RANK = {ranks.local_rank}",
            got=f"{name}, and {torch.cuda.device_count()} GPUs",
            where="train.device",
            mend="start as many ranks on this machine as it has GPUs, or use --train.device cpu",
        )
    replace = msgspec.structs.replace
    return replace(config, train=replace(config.train, device=f"cuda:{ranks.local_rank}"))
