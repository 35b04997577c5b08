"""Running statistics of an encoder that has not been trained."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def calibrate_batch_norm(encoder: nn.Module, batches: Iterable[Tensor]) -> int:
    """Set every batch norm's running statistics to their mean over the batches; returns the number of norms.

    Fresh statistics (mean 0, variance 1) misjudge an untrained encoder's weights. The batches are what the
    encoder takes, normalised float [N, 3, H, W]; weights and the training flag stay as they were.
    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return 0
    momenta, was_training = [norm.momentum for norm in norms], encoder.training
    for norm in norms:
        norm.reset_running_stats()
        # None keeps the plain mean over all batches instead of a decaying one.
        norm.momentum = None
    encoder.train()
    for images_NCHW in batches:
        encoder(images_NCHW)
    encoder.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
