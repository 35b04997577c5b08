"""AdamW as StableRep uses it, and the learning rate of a step."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from trainer.config import TrainConfig


def build_optimizer(modules: Iterable[nn.Module], config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters; weight decay on matrices and kernels only.

    Biases, norms and other one-dimensional parameters are not decayed. The learning rate starts at 0: set it
    before every step with `set_learning_rate`.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=0.0, betas=config.betas)


def learning_rate(step: int, peak: float, warmup_steps: int, max_steps: int) -> float:
    """Rate of step 0, 1, ...: linear up to `peak` at step `warmup_steps - 1`, then half a cosine down to 0.

    The first step already has a rate above 0, and 0 is reached at step `max_steps`, one past the last.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
