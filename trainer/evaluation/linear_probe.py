"""StableRep's linear probe (its main_linear.py): many linear classifiers side by side on frozen features.

    random crops ─encoder→ features ─→ 10 learning rates x (plain, batch norm) ─SGD→ judged every 10 epochs

SGD with momentum 0.9, no weight decay, learning rate base x batch / 256 with a cosine to 0 by step; weights
from N(0, 0.01), biases 0; the norm has no affine part and epsilon 1e-6. An epoch leaves its incomplete batch
out.

Shapes: N pictures, F features, C classes. The state after every epoch is one file, which an interrupted probe
goes on from.
"""

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

BASE_LRS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
EPOCHS, JUDGED_EVERY, BATCH_IMAGES = 90, 10, 1024
NORMS = ("plain", "batch_norm")
"""The README's two columns: without batch norm before the classifier, and with."""


class Asked(NamedTuple):
    """Features [N, F] and labels [N] that heads are judged on."""

    features_NF: Tensor
    labels_N: Tensor


class Best(NamedTuple):
    """The head and epoch of the best score among those of one norm."""

    score: float
    epoch: int
    base_lr: float
    predicted_N: Tensor
    """int64, its predictions for the test features at that epoch."""


class LinearProbe:
    """All heads, their optimizer, and the best of what was judged."""

    def __init__(self, dim: int, classes: int, *, batch_images: int, total_steps: int, seed: int) -> None:
        self.epoch = 0
        self.curve: list[dict[str, Any]] = []
        """Score by norm and base learning rate, for each judged epoch."""
        self.best: dict[str, Best] = {}
        self._total_steps = total_steps
        self._steps = 0
        # All heads would have the same statistics of the same features, so one norm does for all.
        self.norm = nn.BatchNorm1d(dim, eps=1e-6, affine=False)
        self.heads = nn.ModuleDict()
        groups = []
        generator = torch.Generator().manual_seed(seed)
        for norm in NORMS:
            for base_lr in BASE_LRS:
                head = nn.Linear(dim, classes)
                nn.init.normal_(head.weight, std=0.01, generator=generator)
                nn.init.zeros_(head.bias)
                self.heads[_key(norm, base_lr)] = head
                groups.append({"params": head.parameters(), "peak": base_lr * batch_images / 256})
        self._optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9)

    def to(self, device: torch.device) -> "LinearProbe":
        """Moves the heads, before the first step."""
        self.heads.to(device)
        self.norm.to(device)
        return self

    def step(self, features_NF: Tensor, labels_N: Tensor) -> None:
        """One update of every head."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * (1 + math.cos(math.pi * self._steps / self._total_steps)) / 2
        logits = self._logits(features_NF.float(), training=True)
        loss = torch.stack([functional.cross_entropy(rows_NC, labels_N) for rows_NC in logits.values()]).sum()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._optimizer.step()
        self._steps += 1

    @torch.no_grad()
    def judge(self, chosen_on: Asked, test: Asked) -> None:
        """Scores every head after `epoch` epochs; the first of equals stays the best."""
        scores = {
            key: (rows_NC.argmax(dim=1) == chosen_on.labels_N).double().mean().item()
            for key, rows_NC in self._logits(chosen_on.features_NF, training=False).items()
        }
        self.curve.append({"epoch": self.epoch, **scores})
        logits = self._logits(test.features_NF, training=False)
        for norm in NORMS:
            for base_lr in BASE_LRS:
                score = scores[_key(norm, base_lr)]
                if norm not in self.best or score > self.best[norm].score:
                    predicted_N = logits[_key(norm, base_lr)].argmax(dim=1).cpu()
                    self.best[norm] = Best(score, self.epoch, base_lr, predicted_N)

    def _logits(self, features_NF: Tensor, *, training: bool) -> dict[str, Tensor]:
        self.norm.train(training)
        by_norm = {"plain": features_NF, "batch_norm": self.norm(features_NF)}
        return {key: head(by_norm[key.rpartition("-")[0]]) for key, head in self.heads.items()}

    def save(self, path: Path) -> None:
        """Writes the state after an epoch, by rename."""
        tensors = {f"head.{name}": value for name, value in self.heads.state_dict().items()}
        tensors |= {f"norm.{name}": value for name, value in self.norm.state_dict().items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors[f"momentum.{index}"] = state["momentum_buffer"]
        tensors |= {f"best.{norm}": best.predicted_N for norm, best in self.best.items()}
        told = {
            "epoch": self.epoch,
            "steps": self._steps,
            "curve": self.curve,
            "best": {norm: best[:3] for norm, best in self.best.items()},
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            temporary,
            {"told": json.dumps(told)},
        )
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Takes that back."""
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["told"])
            by_owner: dict[str, dict[str, Tensor]] = {"head": {}, "norm": {}, "momentum": {}, "best": {}}
            for name in file.keys():  # noqa: SIM118 - a file of safetensors is no mapping
                owner, key = name.split(".", 1)
                by_owner[owner][key] = file.get_tensor(name)
        self.heads.load_state_dict(by_owner["head"])
        self.norm.load_state_dict(by_owner["norm"])
        state = {int(index): {"momentum_buffer": value} for index, value in by_owner["momentum"].items()}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.epoch, self._steps, self.curve = told["epoch"], told["steps"], told["curve"]
        self.best = {
            norm: Best(score, epoch, base_lr, by_owner["best"][norm])
            for norm, (score, epoch, base_lr) in told["best"].items()
        }


Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]
"""Features and labels of an epoch's whole batches, by the epoch's number from 0."""


def run_probe(
    probe: LinearProbe, batches: Batches, chosen_on: Asked, test: Asked, *, epochs: int, state: Path
) -> LinearProbe:
    """Trains what `state` does not hold yet, and judges every 10 epochs and after the last."""
    if state.exists():
        probe.load(state)
    while probe.epoch < epochs:
        for features_NF, labels_N in batches(probe.epoch):
            probe.step(features_NF, labels_N)
        probe.epoch += 1
        if probe.epoch % JUDGED_EVERY == 0 or probe.epoch == epochs:
            probe.judge(chosen_on, test)
        probe.save(state)
    return probe


def _key(norm: str, base_lr: float) -> str:
    return f"{norm}-{base_lr:g}".replace(".", "_")  # torch allows no dot in a module's name
