"""StableRep, SupCon and SimCLR: one head, and a loss that compares images with images."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from trainer.augment_parameters import Key
from trainer.encoder import Encoder
from trainer.head import Head
from trainer.objectives.objective import Outcome, Targets
from trainer.objectives.over_ranks import BatchLoss, multi_positive_loss, simclr_loss

ImageLoss = Callable[[Tensor, Targets, float], BatchLoss]
"""(projected_ND, targets, temperature) -> loss"""


class Contrastive:
    """encoder ─features→ head ─projections→ loss"""

    def __init__(self, encoder: Encoder, head: Head, loss: ImageLoss, temperature: float) -> None:
        self.parts = nn.ModuleDict({"head": head})
        self.exported = nn.ModuleDict()
        self._encoder = encoder
        self._head = head
        self._loss = loss
        self._temperature = temperature

    def embed(self, images_NCHW: Tensor, keys: Sequence[Key]) -> Tensor:
        """The encoder's features."""
        features_NF: Tensor = self._encoder(images_NCHW)
        return features_NF

    def loss(self, embedded_NF: Tensor, targets: Targets) -> Outcome:
        """Of the projected features; the head's batch norm sees the whole batch."""
        projected_ND = self._head(embedded_NF)
        loss = self._loss(projected_ND, targets, self._temperature)
        return Outcome(loss, embedded_NF.detach(), projected_ND.detach())

    def after_update(self) -> None:
        """Nothing is bounded."""

    def save(self, folder: Path, exported: nn.ModuleDict) -> None:
        """The encoder is all."""


def by_caption(projected_ND: Tensor, targets: Targets, temperature: float) -> BatchLoss:
    """StableRep: the images of an image's caption are its positives."""
    return multi_positive_loss(projected_ND, targets.ids_N, temperature)


def by_class(projected_ND: Tensor, targets: Targets, temperature: float) -> BatchLoss:
    """SupCon: the images of an image's class are its positives."""
    assert targets.classes_N is not None, "limits.check has asked for classes"
    return multi_positive_loss(projected_ND, targets.classes_N, temperature)


def by_augmentation(projected_ND: Tensor, targets: Targets, temperature: float) -> BatchLoss:
    """SimCLR: the other augmentation of an image is its only positive."""
    return simclr_loss(projected_ND, temperature)
