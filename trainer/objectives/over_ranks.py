"""Losses of a batch that is spread over ranks: gathered rows, sums of this rank's anchors, one mean over all.

    rows ─gather_rows→ candidates ─ trainer.losses ─LossSums→ mean_over_ranks ─BatchLoss→ objective

The shares of all ranks add up to the loss of the whole batch, and so do their gradients: ranks must sum the
gradients of their weights, not average them.

Shapes: N this rank's images, T its distinct captions, D feature dimensions. Ids are int64.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.losses.image_text import first_of_each, image_text
from trainer.losses.multi_positive import multi_positive
from trainer.losses.simclr import simclr
from trainer.losses.sums import LossSums
from trainer.ranks import gather_rows, sum_over_ranks


class BatchLoss(NamedTuple):
    """The loss of a batch, scalars of one dtype."""

    share: Tensor
    """This rank's part; carries the gradient."""
    value: Tensor
    """The mean over the valid anchors of all ranks: the sum of all shares."""
    excess: Tensor
    """The value less the least that it could be on this batch."""

    def times(self, weight: float) -> "BatchLoss":
        """Every part times a number."""
        return BatchLoss(self.share * weight, self.value * weight, self.excess * weight)

    def plus(self, other: "BatchLoss") -> "BatchLoss":
        """The sum of two terms."""
        return BatchLoss(self.share + other.share, self.value + other.value, self.excess + other.excess)


def mean_over_ranks(sums: LossSums) -> BatchLoss:
    """The mean over the valid anchors of all ranks; zero where there is none."""
    totals = sum_over_ranks(torch.stack([sums.loss_sum.detach(), sums.floor_sum, sums.valid_count]))
    count = totals[2].clamp(min=1)
    return BatchLoss(
        share=sums.loss_sum / count, value=totals[0] / count, excess=(totals[0] - totals[1]) / count
    )


def multi_positive_loss(features_ND: Tensor, ids_N: Tensor, temperature: float) -> BatchLoss:
    """`multi_positive` with the images of all ranks as candidates."""
    candidates_MD, first = gather_rows(_at_least_float32(features_ND))
    candidate_ids_M, _ = gather_rows(ids_N)
    own_N = first + torch.arange(len(ids_N), device=ids_N.device)
    return mean_over_ranks(
        multi_positive(features_ND, ids_N, candidates_MD, candidate_ids_M, own_N, temperature)
    )


def simclr_loss(features_ND: Tensor, temperature: float) -> BatchLoss:
    """`simclr` with the images of all ranks as candidates; rows 2k and 2k + 1 are of one image."""
    assert len(features_ND) % 2 == 0, "two augmentations an image"
    candidates_MD, first = gather_rows(_at_least_float32(features_ND))
    own_N = first + torch.arange(len(features_ND), device=features_ND.device)
    return mean_over_ranks(simclr(features_ND, candidates_MD, own_N, temperature))


def image_text_loss(
    images_ND: Tensor, image_ids_N: Tensor, texts_TD: Tensor, text_ids_T: Tensor, scale: Tensor
) -> BatchLoss:
    """The mean of both directions of `image_text`, over the images and the distinct captions of all ranks.

    `texts_TD` are this rank's captions, each once. A caption that several ranks hold counts once: the first
    rank's row stands for it, as a column and as an anchor.
    """
    all_images_MD, _ = gather_rows(_at_least_float32(images_ND))
    all_image_ids_M, _ = gather_rows(image_ids_N)
    all_texts_KD, first = gather_rows(_at_least_float32(texts_TD))
    all_text_ids_K, _ = gather_rows(text_ids_T)
    distinct = first_of_each(all_text_ids_K)
    own = distinct[(distinct >= first) & (distinct < first + len(texts_TD))] - first
    to_texts = mean_over_ranks(
        image_text(images_ND, image_ids_N, all_texts_KD[distinct], all_text_ids_K[distinct], scale)
    )
    to_images = mean_over_ranks(
        image_text(texts_TD[own], text_ids_T[own], all_images_MD, all_image_ids_M, scale)
    )
    return to_texts.plus(to_images).times(0.5)


def _at_least_float32(features_ND: Tensor) -> Tensor:
    """So that gradients of half precision features are summed over ranks in float32."""
    return features_ND.to(torch.promote_types(features_ND.dtype, torch.float32))
