"""The step interface that every objective has, and what passes through it.

    images_NCHW ─embed→ embedded_NF ─ loss(targets) ─→ Outcome ─ share.backward() → update → after_update

`embed` treats each image for itself, so a batch may go through it in parts; `loss` sees the whole batch.

Shapes: N images of this rank, group-major, views and then crops within a group; F what `embed` gives for an
image; D dimensions in which images are compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from trainer.augment_parameters import Key
from trainer.objectives.over_ranks import BatchLoss


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What a loss is told of a batch besides its pixels."""

    ids_N: Tensor
    """int64 caption ids."""
    classes_N: Tensor | None
    """int64 class of each image's caption, where the run has classes."""
    captions: Mapping[int, str]
    """The distinct captions by id."""


class Outcome(NamedTuple):
    """What an objective finds of a batch. Tensors are without gradient."""

    loss: BatchLoss
    features_NF: Tensor
    """The encoder's."""
    projected_ND: Tensor | None
    """What it compared images by; None where it compares none."""


class Objective(Protocol):
    """Built on an encoder that it does not own."""

    parts: nn.ModuleDict
    """What is trained beside the encoder; their names begin the names of their tensors in a checkpoint."""

    exported: nn.ModuleDict
    """Those of the parts that are saved with the encoder, and averaged with it."""

    def embed(self, images_NCHW: Tensor, keys: Sequence[Key]) -> Tensor:
        """Normalised float images [N, 3, H, W] and the key of each -> [N, F], row by row."""

    def loss(self, embedded_NF: Tensor, targets: Targets) -> Outcome:
        """The loss of the whole batch, its candidates gathered from all ranks."""

    def after_update(self) -> None:
        """What must hold of the weights after each optimizer step."""

    def save(self, folder: Path, exported: nn.ModuleDict) -> None:
        """Adds to the folder of the saved encoder what judging it needs besides, if anything: `exported`, or
        the average of it."""
