"""Encoder, head and gradients over ranks: together they are what one process finds on the whole batch.

Each rank is a process of its own that runs this file: `test_batch_norm.py RANK WORLD FOLDER`.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.batch_norm import RankBatchNorm, span_ranks
from trainer.config import ModelConfig, RunConfig, TrainConfig, TrainerConfig
from trainer.encoder import build_encoder
from trainer.objectives.build import build_objective
from trainer.objectives.objective import Targets
from trainer.ranks import sum_gradients

TIMEOUT_SECONDS = 240.0
GROUPS = 5
PARTS = {2: (0, 1, 5), 3: (0, 2, 3, 5)}
"""Where each rank's groups begin: of two ranks the first has one group, which has no variance of its own."""
ENCODER = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": 8,
}
CAPTIONS = {3: "a red fish", 5: "two roses", 9: "a flag"}
IDS = (3, 5, 3, 9, 5)
"""Caption of each group: captions repeat within a rank and between ranks."""


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _step(first: int, last: int, *, over_ranks: bool) -> dict[str, Tensor]:
    """Two training passes of StableRep+ on these groups; the second sees the first one's statistics."""
    config = TrainerConfig(
        run=RunConfig(seed=4),
        model=ModelConfig(encoder=ENCODER, head_hidden=12, head_out=8, text=TEXT),
        train=TrainConfig(objective="stablerep+"),
    )
    encoder = build_encoder(ENCODER, 64, 4)
    if over_ranks:
        span_ranks(encoder)
    objective = build_objective(config, encoder)
    encoder.double().train()
    objective.parts.double().train()
    ids_N = torch.tensor(IDS[first:last]).repeat_interleave(config.generation.views)
    targets = Targets(ids_N=ids_N, classes_N=None, captions={i: CAPTIONS[i] for i in IDS[first:last]})
    views = config.generation.views
    losses = []
    for seed in (0, 1):
        images = _random(GROUPS * views, 3, 16, 16, seed=seed)[first * views : last * views]
        outcome = objective.loss(objective.embed(images, []), targets)
        outcome.loss.share.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        losses.append(outcome.loss.value)
    named = {**dict(encoder.named_parameters()), **dict(objective.parts.named_parameters())}
    sum_gradients(named.values())
    found = {f"{name}.grad": weight.grad for name, weight in named.items() if weight.grad is not None}
    found |= {name: value.double() for name, value in encoder.named_buffers()}
    found |= {name: value.double() for name, value in objective.parts.named_buffers()}
    return {"losses": torch.stack(losses), **found}


def _layer(first: int, last: int, *, over_ranks: bool) -> dict[str, Tensor]:
    """One layer with a momentum of None, on values whose mean is large beside their deviation."""
    norm: nn.Module = nn.Sequential(nn.BatchNorm1d(4, momentum=None)).double()
    if over_ranks:
        span_ranks(norm)
    values = (_random(GROUPS, 4, 7, seed=8) + 1e4)[first:last].requires_grad_()
    output = norm(values)
    (output * _random(GROUPS, 4, 7, seed=9)[first:last]).sum().backward()
    assert values.grad is not None
    statistics = {name: value.double() for name, value in norm.named_buffers()}
    return {"rows.grad": values.grad, "rows.output": output.detach(), **statistics}


def _run_rank(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    first, last = PARTS[world][rank : rank + 2]
    found = {f"layer.{k}": v for k, v in _layer(first, last, over_ranks=True).items()}
    found |= {f"step.{k}": v for k, v in _step(first, last, over_ranks=True).items()}
    save_file(
        {name: value.contiguous() for name, value in found.items()}, folder / f"rank-{rank}.safetensors"
    )
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("world", PARTS)
def test_ranks_find_the_gradient_of_the_whole_batch(world: int, tmp_path: Path, repository: Path) -> None:
    """To 1e-9 in float64: losses, the gradient of every weight and every running statistic, on every rank."""
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(world), str(tmp_path)], env=environment)
        for rank in range(world)
    ]
    try:
        assert [rank.wait(TIMEOUT_SECONDS) for rank in ranks] == [0] * world
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    found = [load_file(tmp_path / f"rank-{rank}.safetensors") for rank in range(world)]
    whole = {f"layer.{k}": v for k, v in _layer(0, GROUPS, over_ranks=False).items()}
    whole |= {f"step.{k}": v for k, v in _step(0, GROUPS, over_ranks=False).items()}
    assert all(part.keys() == whole.keys() for part in found)
    for name, expected in whole.items():
        if ".rows." in name:
            torch.testing.assert_close(
                torch.cat([part[name] for part in found]), expected, rtol=1e-6, atol=1e-8, msg=name
            )
            continue
        for part in found:
            torch.testing.assert_close(part[name], expected, rtol=1e-9, atol=1e-11, msg=name)


def test_a_spanned_encoder_keeps_its_weights_and_names() -> None:
    """A checkpoint of either kind fits the other, and without ranks both compute the same."""
    encoder = build_encoder(ENCODER, 32, 0)
    spanned = copy.deepcopy(encoder)
    span_ranks(spanned)
    assert sum(isinstance(module, RankBatchNorm) for module in spanned.modules()) == sum(
        isinstance(module, nn.BatchNorm2d) for module in encoder.modules()
    )
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(encoder(images), spanned(images))
    state = spanned.state_dict()
    assert list(state) == list(encoder.state_dict())
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())
    assert torch.equal(encoder.eval()(images), spanned.eval()(images))


if __name__ == "__main__":
    _run_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
