"""Guidance scales: which a sampler can honour, and how a distilled UNet reads them."""

import torch
from torch import Tensor

from protocol.errors import UserError
from protocol.generation import GenerationSpec


def check_guidance(spec: GenerationSpec) -> None:
    """Raises UserError for scales that would do nothing, or harm, with this sampler."""
    if spec.sampler == "turbo" and max(spec.guidance) > 1:
        raise UserError(
            "turbo models have no guidance",
            expected="[1.0]: adversarial distillation left no unconditional branch to guide against",
            got=str(list(spec.guidance)),
            where="generation.guidance",
            mend="give [1.0], or another generation.sampler",
        )


def guidance_embedding(excess_N: Tensor, width: int) -> Tensor:
    """float32 [N, width]: sines, then cosines of 1000 (w - 1) over geometric frequencies (Meng et al. 2023).

    `excess_N` is w - 1. The formula is that of diffusers' `get_guidance_scale_embedding`.
    """
    half = width // 2
    rate = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequency_F = torch.exp(torch.arange(half, dtype=torch.float32) * -rate)
    angle_NF = (excess_N * 1000.0)[:, None] * frequency_F[None, :]
    embedding_NE = torch.cat([torch.sin(angle_NF), torch.cos(angle_NF)], dim=1)
    return torch.nn.functional.pad(embedding_NE, (0, width % 2))
