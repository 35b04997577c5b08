"""Learners of two ranks, each with its part of every batch, end with what one learner has on whole batches.

Each rank is a process of its own that runs this file: `test_learner_over_ranks.py RANK FOLDER`.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.config import TrainerConfig
from trainer.learner import Learner
from trainer.plan import Plan

TIMEOUT_SECONDS = 240.0
STEPS, GROUPS, VIEWS = 4, 5, 3
PARTS = (slice(0, 2), slice(2, GROUPS))
"""Groups of each rank: 6 and 9 images, which micro-batches of 4 leave a rest of 2 and of 1."""
VIT = {
    "model_type": "vit",
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CASES: dict[str, dict[str, Any]] = {
    "average": {"ema_decay": 0.9},
    "micro-batches": {"micro_batch": 4},
    "micro-batches and average": {"micro_batch": 4, "ema_decay": 0.5},
    "average of a text tower": {"micro_batch": 4, "ema_decay": 0.3, "objective": "stablerep+"},
}


def _config(**train: Any) -> TrainerConfig:
    tables = {
        "run": {"max_steps": 50, "seed": 4},
        "generation": {"views": VIEWS, "size": 16},
        "model": {"encoder": VIT, "head_hidden": 16, "head_out": 8, "text": TEXT},
        "train": {"warmup_steps": 2, "lr": 3e-3, "precision": "float32", "device": "cpu", **train},
        "augment": {"crop_size": 16},
    }
    return msgspec.convert(tables, TrainerConfig, strict=False)


PLAN = Plan(Captions([f"a {word}" for word in ("fish", "rose", "flag")]), 0, _config().generation)


def _batch(step: int) -> Batch:
    """Five groups of three captions, which come again within a rank and on both."""
    images = np.random.default_rng(step).integers(0, 256, (GROUPS, VIEWS, 16, 16, 3), dtype=np.uint8)
    groups = [
        DrawnGroup(
            ticket=PLAN.ticket(GROUPS * step + i),
            images_NHWC=images[i],
            source="online",
            worker="w",
            content="c",
            engine="e",
            digest="0" * 16,
            arrived_seconds=0.0,
        )
        for i in range(GROUPS)
    ]
    return Batch(step=step, groups=tuple(groups), uses=(1,) * GROUPS)


def _in_float64(module: nn.Module, images: tuple[Tensor]) -> tuple[Tensor]:
    return (images[0].double(),)


def _train(case: str, part: slice, **instead: Any) -> dict[str, Tensor]:
    """All that a checkpoint would hold of the weights, and the losses."""
    torch.set_default_dtype(torch.float64)
    try:
        learner = Learner(_config(**CASES[case] | instead))
    finally:
        torch.set_default_dtype(torch.float32)
    learner.encoder.register_forward_pre_hook(_in_float64)
    losses = [learner.step(_batch(step).part(part)).loss for step in range(1, STEPS + 1)]
    found = {name: value for name, value in learner.tensors().items() if not name.startswith("rng.")}
    return {**found, "losses": torch.tensor(losses, dtype=torch.float64)}


def _run_rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(PARTS))
    for case in CASES:
        found = {name: value.contiguous() for name, value in _train(case, PARTS[rank]).items()}
        save_file(found, folder / f"{case}-{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The folder of what each rank came to."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=environment)
        for rank in range(len(PARTS))
    ]
    try:
        assert [rank.wait(TIMEOUT_SECONDS) for rank in ranks] == [0] * len(PARTS)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_ranks_come_to_the_weights_of_the_whole_batch(case: str, of_ranks: Path) -> None:
    """To 1e-7 in float64: every weight, average, moment of the optimizer and loss, on either rank. Of a bias
    that batch norm takes away again the gradient is rounding alone, which Adam makes large."""
    whole = _train(case, slice(None), micro_batch=0)
    floats = [name for name, value in whole.items() if value.is_floating_point()]
    assert {whole[name].dtype for name in floats if ".step" not in name} == {torch.float64}
    for rank in range(len(PARTS)):
        found = load_file(of_ranks / f"{case}-{rank}.safetensors")
        assert found.keys() == whole.keys()
        for name, expected in whole.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-7, atol=1e-7, msg=name)
    averages = [name for name in whole if name.startswith("ema.")]
    assert bool(averages) == ("average" in case)
    if averages:
        newest = {"ema." + name.removeprefix("encoder."): value for name, value in whole.items()}
        assert any((newest[name] - whole[name]).abs().max() > 1e-4 for name in averages if name in newest)


if __name__ == "__main__":
    _run_rank(int(sys.argv[1]), Path(sys.argv[2]))
