"""CLIP and StableRep+: images compared with captions, and in StableRep+ with each other as well.

    features ─image projection→ ┐
                                ├ image-text loss, both directions ┐
    captions ───text tower────→ ┘                                  ├ sum
    features ─head→ multi-positive loss (StableRep+) ──────────────┘

Shapes: N images, T distinct captions, F encoder features, D projected dimensions.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.augment_parameters import Key
from trainer.encoder import Encoder
from trainer.head import Head
from trainer.image_text_folder import FOLDER, save_projection
from trainer.objectives.objective import Outcome, Targets
from trainer.objectives.over_ranks import image_text_loss, multi_positive_loss
from trainer.text_tower import TextTower

SCALE_FIRST = 1 / 0.07
SCALE_MAX = 100.0


class ImageTextHead(nn.Module):
    """A linear map of features to the text tower's space, and the learnt inverse temperature, as in CLIP."""

    def __init__(self, dim: int, out: int, *, seed: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, out, bias=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nn.init.normal_(self.projection.weight, std=dim**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE_FIRST)))

    def forward(self, features_NF: Tensor) -> Tensor:
        """[N, F] -> [N, D]"""
        projected_ND: Tensor = self.projection(features_NF)
        return projected_ND

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keeps the scale in 1..100, as StableRep's code does after each update."""
        self.log_scale.clamp_(0, math.log(SCALE_MAX))


class ImageText:
    """The image-text loss times `text_weight`, plus StableRep's loss where there is a head for it."""

    def __init__(
        self,
        encoder: Encoder,
        text: TextTower,
        head: Head | None,
        *,
        temperature: float,
        text_weight: float,
        seed: int,
    ) -> None:
        self._encoder = encoder
        self._text = text
        self._head = head
        self._image_text = ImageTextHead(encoder.dim, text.dim, seed=seed)
        self._temperature = temperature
        self._text_weight = text_weight
        self.exported = nn.ModuleDict({"text": text, "image_text": self._image_text})
        self.parts = nn.ModuleDict(dict(self.exported))
        if head is not None:
            self.parts["head"] = head

    def embed(self, images_NCHW: Tensor, keys: Sequence[Key]) -> Tensor:
        """The encoder's features."""
        features_NF: Tensor = self._encoder(images_NCHW)
        return features_NF

    def loss(self, embedded_NF: Tensor, targets: Targets) -> Outcome:
        """Each distinct caption of the batch is encoded once."""
        images_ND = self._image_text(embedded_NF)
        texts_TD = self._text(list(targets.captions.values()))
        text_ids_T = torch.tensor(list(targets.captions), device=targets.ids_N.device)
        scale = self._image_text.log_scale.exp()
        loss = image_text_loss(images_ND, targets.ids_N, texts_TD, text_ids_T, scale).times(self._text_weight)
        if self._head is None:
            return Outcome(loss, embedded_NF.detach(), images_ND.detach())
        projected_ND = self._head(embedded_NF)
        image_loss = multi_positive_loss(projected_ND, targets.ids_N, self._temperature)
        return Outcome(image_loss.plus(loss), embedded_NF.detach(), projected_ND.detach())

    def after_update(self) -> None:
        """The scale stays within its bounds."""
        self._image_text.clamp_scale()

    def save(self, folder: Path, exported: nn.ModuleDict) -> None:
        """Adds the text tower and the projection, for zero-shot classification and retrieval by text."""
        text, head = exported["text"], exported["image_text"]
        assert isinstance(text, TextTower)
        assert isinstance(head, ImageTextHead)
        text.save(folder / FOLDER)
        save_projection(folder / FOLDER, head.projection.weight, head.log_scale)
