"""One optimizer step on one batch.

images ─augment→ objective.embed (the encoder) ─features→ objective.loss ─gradient, summed over ranks→ AdamW

Shapes: N = G groups x V views x crops, group-major; H, W pixels; F encoder features; D projected dimensions.
"""

import math
import struct
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from protocol.errors import UserError
from trainer.augment import Augment
from trainer.batch import Batch
from trainer.batch_norm import span_ranks
from trainer.checkpoint import Tensors
from trainer.config import TrainerConfig
from trainer.device import resolve_device, resolve_precision
from trainer.encoder import Encoder, build_encoder
from trainer.errors import NonFiniteLossError
from trainer.micro_batch import MicroBatches, refuse_batch_norm
from trainer.objectives.build import build_objective
from trainer.objectives.needs import NEEDS
from trainer.objectives.objective import Targets
from trainer.optimizer import build_optimizer, learning_rate, set_learning_rate
from trainer.ranks import rank_count, sum_gradients
from trainer.step_result import StepResult
from trainer.weight_average import WeightAverage

Row = TypeVar("Row", np.uint8, np.int64)


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
        if rank_count() > 1:
            span_ranks(self.encoder)
        if config.train.micro_batch:
            refuse_batch_norm(self.encoder)
        self.objective = build_objective(config, self.encoder)
        self.encoder.to(self.device)
        self.objective.parts.to(self.device)
        if config.train.checkpointing:
            self.encoder.checkpoint_layers()
        decay = config.train.ema_decay
        self._average = WeightAverage(self.encoder, self.objective.exported, decay) if decay else None
        self._optimizer = build_optimizer([self.encoder, self.objective.parts], config.train)
        self._augment = Augment(config.augment, self.device)
        # float16 has no room for small gradients; the other types need no scale, and get none.
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        if config.train.compile:
            self.encoder.compile()

    def step(self, batch: Batch) -> StepResult:
        """Trains on this rank's part of one batch. Raises NonFiniteLossError, on every rank alike, before the
        weights are touched.

        Its statistics are put back then, so that what is saved after it is what the last step left. In
        float16 a gradient that overflows at a scaled loss is no error: the scale is halved, the weights stay.
        """
        config = self._config
        _seed_rank(config.run.seed, batch.step)
        keys = batch.keys(config.run.seed, self._crops)
        images_NCHW = self._augment(_repeat(batch.images_NHWC(), self._crops), keys)
        targets = self._targets(batch)
        self.encoder.train()
        self.objective.parts.train()
        statistics = [buffer.clone() for buffer in self._buffers()]

        def embed(rows: slice) -> Tensor:
            with self._autocast():
                return self.objective.embed(images_NCHW[rows], keys[rows])

        parts = None
        if 0 < config.train.micro_batch < len(keys):
            parts = MicroBatches(embed, len(keys), config.train.micro_batch, self.device)
        embedded_NF = parts.forward() if parts else embed(slice(None))
        with self._autocast():
            loss, features_NF, projected_ND = self.objective.loss(embedded_NF, targets)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss.share).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        if parts:
            parts.backward()
        # Each rank has the gradient of its share of the loss, and the shares add up to the loss.
        sum_gradients(self._weights())
        lr = learning_rate(batch.step - 1, config.peak_lr, config.train.warmup_steps, config.run.max_steps)
        self._scaler.unscale_(self._optimizer)
        wrong = self._not_finite(loss.value)
        if wrong:
            for buffer, before in zip(self._buffers(), statistics, strict=True):
                buffer.copy_(before)
        self._update(batch.step, lr, wrong)
        return StepResult(
            loss=loss.value.item(),
            loss_excess=loss.excess.item(),
            lr=lr,
            features_NF=features_NF,
            projected_ND=projected_ND,
            ids_N=targets.ids_N,
            loss_scale=self._scaler.get_scale() if self._scaler.is_enabled() else None,
        )

    def _update(self, step: int, lr: float, wrong: str) -> None:
        """`wrong`: what is not finite, if anything."""
        if wrong and (wrong == "loss" or self._scaler.get_scale() <= 1):
            raise NonFiniteLossError(
                f"the {wrong} of step {step} is not finite at a learning rate of {lr:.3g};"
                f" lower train.{'lr' if self._config.train.lr else 'base_lr'}"
            )
        set_learning_rate(self._optimizer, lr)
        self._scaler.step(self._optimizer)  # which sees an overflow by itself, and leaves the weights alone
        self._scaler.update()
        if wrong:
            return
        self.objective.after_update()
        if self._average:
            self._average.update(self.encoder, self.objective.exported, step)

    def _not_finite(self, loss: Tensor) -> str:
        """`loss` or `gradient`, whichever is infinite or no number; empty where both are finite."""
        gradients = [weight.grad for weight in self._weights() if weight.grad is not None]
        # The largest magnitude: a sum of squares may overflow where each gradient is finite.
        largest = torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)
        if torch.isfinite(loss + largest):  # one wait for the device, not two
            return ""
        return "gradient" if torch.isfinite(loss) else "loss"

    def _weights(self) -> list[Tensor]:
        return [weight for group in self._optimizer.param_groups for weight in group["params"]]

    def _buffers(self) -> Iterator[Tensor]:
        return chain(self.encoder.buffers(), self.objective.parts.buffers())

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
        """Normalised images -> features [N, F] float32 on the CPU, of the encoder that is exported."""
        encoder = self._exported()[0].eval()
        with torch.inference_mode(), self._autocast():
            features_NF: Tensor = encoder(images_NCHW.to(self.device))
        return features_NF.float().cpu()

    def save_encoder(self, folder: Path) -> None:
        """Writes a folder that `AutoModel.from_pretrained` loads, and into it what the objective adds."""
        encoder, parts = self._exported()
        encoder.save(folder)
        self.objective.save(folder, parts)

    def _exported(self) -> tuple[Encoder, nn.ModuleDict]:
        if self._average and self._config.train.export == "ema":
            return self._average.encoder, self._average.parts
        return self.encoder, self.objective.exported

    def tensors(self) -> Tensors:
        """Weights, optimizer state and torch's random state, for a checkpoint."""
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        tensors |= self.objective.parts.state_dict()
        if self._average:
            tensors |= {f"ema.{k}": v for k, v in self._average.tensors().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        tensors["rng.torch"] = torch.get_rng_state()
        if scale := self._scaler.state_dict():
            kept = torch.tensor([scale["scale"], scale["_growth_tracker"]], dtype=torch.float64)
            tensors["scaler.state"] = kept
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def load(self, tensors: Tensors) -> None:
        """Takes all that back. Raises UserError where the checkpoint is of another model."""
        by_owner: dict[str, Tensors] = {"encoder": {}, "optimizer": {}, "rng": {}, "scaler": {}}
        if self._average:
            by_owner["ema"] = {}
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
            if self._average:
                self._average.load(by_owner["ema"])
        except RuntimeError as error:
            raise UserError(
                "checkpoint is of another model",
                expected="the [model], [augment], train.objective and train.ema_decay it began with",
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
        if self._scaler.is_enabled() and (kept := by_owner["scaler"].get("state")) is not None:
            scale, steps = kept.tolist()
            self._scaler.load_state_dict(
                {**self._scaler.state_dict(), "scale": scale, "_growth_tracker": int(steps)}
            )


def _seed_rank(seed: int, step: int) -> None:
    """Ranks drop out different units. A function of the step, so that no checkpoint holds a rank's state."""
    if rank_count() > 1:
        key = struct.pack("<QQQ", seed, step, dist.get_rank())
        torch.manual_seed(xxhash.xxh3_64_intdigest(key))


def _repeat(rows: NDArray[Row], crops: int) -> NDArray[Row]:
    """Each row `crops` times in a row."""
    return rows if crops == 1 else np.repeat(rows, crops, axis=0)
