"""One optimizer step on one batch.

images ─augment→ objective.embed (the encoder) ─features→ objective.loss ─gradient→ AdamW

Shapes: N = G groups x V views x crops, group-major; H, W pixels; F encoder features; D projected dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from protocol.errors import UserError
from trainer.augment import Augment
from trainer.batch import Batch
from trainer.checkpoint import Tensors
from trainer.config import TrainerConfig
from trainer.device import resolve_device, resolve_precision
from trainer.encoder import build_encoder
from trainer.errors import NonFiniteLossError
from trainer.measures import alignment, rankme, uniformity
from trainer.micro_batch import MicroBatches, refuse_batch_norm
from trainer.objectives.build import build_objective
from trainer.objectives.needs import NEEDS
from trainer.objectives.objective import Targets
from trainer.optimizer import build_optimizer, learning_rate, set_learning_rate

Row = TypeVar("Row", np.uint8, np.int64)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step came to."""

    loss: float
    loss_excess: float
    """Loss less the least value it could have taken on this batch."""
    lr: float
    features_NF: Tensor
    projected_ND: Tensor | None
    """None where the objective compares no images."""
    ids_N: Tensor

    def measures(self) -> dict[str, float]:
        """Alignment and uniformity of the projections, RankMe of the features.

        What a batch can't tell is left out: alignment where no caption has two images, and all of them where
        the objective compares no images.
        """
        if self.projected_ND is None:
            return {}
        found = {
            "alignment": float(alignment(self.projected_ND, self.ids_N)),
            "uniformity": float(uniformity(self.projected_ND)),
            "rankme": float(rankme(self.features_NF)),
        }
        return {name: value for name, value in found.items() if not math.isnan(value)}


class Learner:
    """Encoder, objective, optimizer and augmentation of one run."""

    def __init__(self, config: TrainerConfig, class_of: Callable[[str], int] | None = None) -> None:
        """`class_of` gives the class of a caption, for the objectives that need classes."""
        self._config = config
        self._class_of = class_of
        self._crops = NEEDS[config.train.objective].crops
        self.device = resolve_device(config.train)
        self.dtype = resolve_precision(config.train, self.device)
        self.encoder = build_encoder(config.model.encoder, config.augment.crop_size, config.run.seed)
        if config.train.micro_batch:
            refuse_batch_norm(self.encoder)
        self.objective = build_objective(config, self.encoder)
        self.encoder.to(self.device)
        self.objective.parts.to(self.device)
        self._optimizer = build_optimizer([self.encoder, self.objective.parts], config.train)
        self._augment = Augment(config.augment, self.device)

    def step(self, batch: Batch) -> StepResult:
        """Trains on one batch. Raises NonFiniteLossError before the weights are touched."""
        config = self._config
        keys = batch.keys(config.run.seed, self._crops)
        images_NCHW = self._augment(_repeat(batch.images_NHWC(), self._crops), keys)
        targets = self._targets(batch)
        self.encoder.train()
        self.objective.parts.train()

        def embed(rows: slice) -> Tensor:
            with self._autocast():
                return self.objective.embed(images_NCHW[rows], keys[rows])

        parts = None
        if 0 < config.train.micro_batch < len(keys):
            parts = MicroBatches(embed, len(keys), config.train.micro_batch, self.device)
        features_NF = parts.forward() if parts else embed(slice(None))
        with self._autocast():
            loss, projected_ND = self.objective.loss(features_NF, targets)
        if not torch.isfinite(loss.value):
            raise NonFiniteLossError(
                f"the loss of step {batch.step} is {loss.value.item()}; lower train.base_lr"
            )
        lr = learning_rate(batch.step - 1, config.peak_lr, config.train.warmup_steps, config.run.max_steps)
        set_learning_rate(self._optimizer, lr)
        self._optimizer.zero_grad(set_to_none=True)
        loss.share.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        if parts:
            parts.backward()
        self._optimizer.step()
        self.objective.after_update()
        return StepResult(
            loss=loss.value.item(),
            loss_excess=loss.excess.item(),
            lr=lr,
            features_NF=features_NF.detach(),
            projected_ND=projected_ND,
            ids_N=targets.ids_N,
        )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _targets(self, batch: Batch) -> Targets:
        captions = batch.captions()
        ids = _repeat(batch.caption_ids(), self._crops)
        classes_N = None
        if self._class_of is not None:
            classes = {caption_id: self._class_of(caption) for caption_id, caption in captions.items()}
            classes_N = torch.tensor([classes[int(i)] for i in ids], device=self.device)
        ids_N = torch.from_numpy(ids).to(self.device)
        return Targets(ids_N=ids_N, classes_N=classes_N, captions=captions)

    def encode(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> features [N, F] float32 on the CPU, without gradient."""
        self.encoder.eval()
        with torch.inference_mode(), self._autocast():
            features_NF: Tensor = self.encoder(images_NCHW.to(self.device))
        return features_NF.float().cpu()

    def save_encoder(self, folder: Path) -> None:
        """Writes a folder that `AutoModel.from_pretrained` loads."""
        self.encoder.save(folder)

    def tensors(self) -> Tensors:
        """Weights, optimizer state and torch's random state, for a checkpoint."""
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        tensors |= self.objective.parts.state_dict()
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["rng.torch"] = torch.get_rng_state()
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def load(self, tensors: Tensors) -> None:
        """Takes all that back. Raises UserError where the checkpoint is of another model."""
        by_owner: dict[str, Tensors] = {"encoder": {}, "optimizer": {}, "rng": {}}
        parts: Tensors = {}
        for name, tensor in tensors.items():
            owner, key = name.split(".", 1)
            if owner in by_owner:
                by_owner[owner][key] = tensor
            else:
                parts[name] = tensor
        try:
            self.encoder.load_state_dict(by_owner["encoder"])
            self.objective.parts.load_state_dict(parts)
        except RuntimeError as error:
            raise UserError(
                "checkpoint is of another model",
                expected="the [model] and [augment] sections and the train.objective that the run began with",
                got=str(error).splitlines()[1].strip() if "\n" in str(error) else str(error),
                where="model",
                mend="restore them, or choose another --run.name",
            ) from error
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in by_owner["optimizer"].items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
        self._optimizer.load_state_dict(
            {"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]}
        )
        torch.set_rng_state(by_owner["rng"]["torch"])


def _repeat(rows: NDArray[Row], crops: int) -> NDArray[Row]:
    """Each row `crops` times in a row."""
    return rows if crops == 1 else np.repeat(rows, crops, axis=0)
