"""One optimizer step on one batch.

images ─augment→ encoder ─features→ head ─projections→ multi-positive loss ─gradient→ AdamW

Shapes: N = G groups x V views, group-major; H, W pixels; F encoder features; D projected dimensions.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from protocol.errors import UserError
from trainer.augment import Augment
from trainer.batch import Batch
from trainer.checkpoint import Tensors
from trainer.config import TrainerConfig
from trainer.device import resolve_device, resolve_precision
from trainer.encoder import build_encoder
from trainer.errors import NonFiniteLossError
from trainer.head import Head
from trainer.measures import alignment, rankme, uniformity
from trainer.objectives.over_ranks import multi_positive_loss
from trainer.optimizer import build_optimizer, learning_rate, set_learning_rate


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step came to."""

    loss: float
    loss_excess: float
    """Loss less the least value it could have taken on this batch."""
    lr: float
    features_NF: Tensor
    projected_ND: Tensor
    ids_N: Tensor

    def measures(self) -> dict[str, float]:
        """Alignment and uniformity of the projections, RankMe of the features."""
        return {
            "alignment": float(alignment(self.projected_ND, self.ids_N)),
            "uniformity": float(uniformity(self.projected_ND)),
            "rankme": float(rankme(self.features_NF)),
        }


class Learner:
    """Encoder, head, optimizer and augmentation of one run."""

    def __init__(self, config: TrainerConfig) -> None:
        self._config = config
        self.device = resolve_device(config.train)
        self.dtype = resolve_precision(config.train, self.device)
        seed, model = config.run.seed, config.model
        self.encoder = build_encoder(model.encoder, config.augment.crop_size, seed).to(self.device)
        self.head = Head(
            self.encoder.dim,
            model.head_hidden,
            model.head_out,
            model.head_layers,
            config.generation.views,
            seed=seed,
        ).to(self.device)
        self._optimizer = build_optimizer([self.encoder, self.head], config.train)
        self._augment = Augment(config.augment, self.device)

    def step(self, batch: Batch) -> StepResult:
        """Trains on one batch. Raises NonFiniteLossError before the weights are touched."""
        config = self._config
        images_NCHW = self._augment(batch.images_NHWC(), batch.keys(config.run.seed))
        ids_N = torch.from_numpy(batch.caption_ids()).to(self.device)
        self.encoder.train()
        self.head.train()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features_NF = self.encoder(images_NCHW)
            projected_ND = self.head(features_NF)
        loss = multi_positive_loss(projected_ND, ids_N, config.train.temperature)
        if not torch.isfinite(loss.value):
            raise NonFiniteLossError(
                f"the loss of step {batch.step} is {loss.value.item()}; lower train.base_lr"
            )
        lr = learning_rate(batch.step - 1, config.peak_lr, config.train.warmup_steps, config.run.max_steps)
        set_learning_rate(self._optimizer, lr)
        self._optimizer.zero_grad(set_to_none=True)
        loss.share.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._optimizer.step()
        return StepResult(
            loss=loss.value.item(),
            loss_excess=loss.excess.item(),
            lr=lr,
            features_NF=features_NF.detach(),
            projected_ND=projected_ND.detach(),
            ids_N=ids_N,
        )

    def encode(self, images_NCHW: Tensor) -> Tensor:
        """Normalised images -> features [N, F] float32 on the CPU, without gradient."""
        self.encoder.eval()
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            features_NF: Tensor = self.encoder(images_NCHW.to(self.device))
        return features_NF.float().cpu()

    def save_encoder(self, folder: Path) -> None:
        """Writes a folder that `AutoModel.from_pretrained` loads."""
        self.encoder.save(folder)

    def tensors(self) -> Tensors:
        """Weights, optimizer state and torch's random state, for a checkpoint."""
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        tensors |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["rng.torch"] = torch.get_rng_state()
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def load(self, tensors: Tensors) -> None:
        """Takes all that back. Raises UserError where the checkpoint is of another model."""
        by_part: dict[str, Tensors] = {"encoder": {}, "head": {}, "optimizer": {}, "rng": {}}
        for name, tensor in tensors.items():
            part, key = name.split(".", 1)
            by_part[part][key] = tensor
        try:
            self.encoder.load_state_dict(by_part["encoder"])
            self.head.load_state_dict(by_part["head"])
        except RuntimeError as error:
            raise UserError(
                "checkpoint is of another model",
                expected="the [model] and [augment] sections that the run began with",
                got=str(error).splitlines()[1].strip() if "\n" in str(error) else str(error),
                where="model",
                mend="restore them, or choose another --run.name",
            ) from error
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in by_part["optimizer"].items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
        self._optimizer.load_state_dict(
            {"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]}
        )
        torch.set_rng_state(by_part["rng"]["torch"])
