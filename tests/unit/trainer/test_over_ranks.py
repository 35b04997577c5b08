"""Losses over ranks: what 1, 2 and 4 processes find together is what one process finds on the whole batch.

Each rank is a process of its own that runs this file: `test_over_ranks.py RANK WORLD FOLDER`.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.losses.image_text import first_of_each
from trainer.losses.sums import LossSums
from trainer.objectives.over_ranks import (
    BatchLoss,
    image_text_loss,
    mean_over_ranks,
    multi_positive_loss,
    simclr_loss,
)

TIMEOUT_SECONDS = 240.0
GROUPS = ((7, 3), (8, 1), (7, 2), (9, 4), (10, 2), (11, 1), (8, 5), (7, 2))
"""(caption id, images): captions repeat within a rank and between ranks, and some come with one image."""
PARTS = {1: (0, 8), 2: (0, 3, 8), 4: (0, 3, 5, 6, 8)}
"""Where each rank's groups begin. Of four ranks the third has one image alone, which has no positive."""
DIM = 6
Results = dict[str, Tensor]


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _ids(first: int, last: int) -> Tensor:
    return torch.tensor([caption for caption, images in GROUPS[first:last] for _ in range(images)])


def _images_before(group: int) -> int:
    return sum(images for _, images in GROUPS[:group])


def _multi_positive(first: int, last: int) -> Results:
    features = _random(_images_before(len(GROUPS)), DIM, seed=0)[_images_before(first) : _images_before(last)]
    features.requires_grad_()
    return _results(multi_positive_loss(features, _ids(first, last), 0.1), images=features)


def _simclr(first: int, last: int) -> Results:
    features = _random(2 * len(GROUPS), DIM, seed=1)[2 * first : 2 * last].requires_grad_()
    return _results(simclr_loss(features, 0.2), images=features)


def _image_text(first: int, last: int) -> Results:
    images = _random(_images_before(len(GROUPS)), DIM, seed=2)[_images_before(first) : _images_before(last)]
    images.requires_grad_()
    table = _random(12, DIM, seed=3).requires_grad_()  # a text tower: one row for each caption id
    scale = torch.tensor(1 / 0.07, dtype=torch.float64, requires_grad=True)
    ids = _ids(first, last)
    text_ids = ids[first_of_each(ids)]
    loss = image_text_loss(images, ids, table[text_ids], text_ids, scale)
    return _results(loss, images=images, summed_table=table, summed_scale=scale)


def _stablerep_plus(first: int, last: int) -> Results:
    """Two terms on features of one batch, as the objective adds them."""
    images = _random(_images_before(len(GROUPS)), DIM, seed=4)[_images_before(first) : _images_before(last)]
    images.requires_grad_()
    table = _random(12, DIM, seed=5).requires_grad_()
    ids = _ids(first, last)
    text_ids = ids[first_of_each(ids)]
    text = image_text_loss(images.tanh(), ids, table[text_ids], text_ids, torch.tensor(10.0))
    return _results(
        multi_positive_loss(images, ids, 0.1).plus(text.times(0.5)), images=images, summed_table=table
    )


def _masked(first: int, last: int) -> Results:
    """The mean of a value for each image, as MAE's."""
    errors = _random(_images_before(len(GROUPS)), 1, seed=6)[_images_before(first) : _images_before(last)]
    errors.requires_grad_()
    count = errors.detach().new_tensor(len(errors))
    return _results(mean_over_ranks(LossSums(errors.sum(), torch.zeros_like(count), count)), images=errors)


def _results(loss: BatchLoss, **leaves: Tensor) -> Results:
    """The loss and the gradient of each leaf, after this rank's share alone went backward."""
    loss.share.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
    found = {"share": loss.share.detach(), "value": loss.value, "excess": loss.excess}
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        found[f"{name}.grad"] = leaf.grad
    return found


CASES: dict[str, Callable[[int, int], Results]] = {
    "multi_positive": _multi_positive,
    "simclr": _simclr,
    "image_text": _image_text,
    "stablerep_plus": _stablerep_plus,
    "masked": _masked,
}


def _run_rank(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    first, last = PARTS[world][rank : rank + 2]
    found = {
        f"{case}.{name}": value.contiguous()
        for case, run in CASES.items()
        for name, value in run(first, last).items()
    }
    save_file(found, folder / f"rank-{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=PARTS)
def of_ranks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> list[Results]:
    """What each of 1, 2 or 4 ranks found, in rank order."""
    world, folder = int(request.param), tmp_path_factory.mktemp(f"world-{request.param}")
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(world), str(folder)], env=environment)
        for rank in range(world)
    ]
    try:
        assert [rank.wait(TIMEOUT_SECONDS) for rank in ranks] == [0] * world
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return [load_file(folder / f"rank-{rank}.safetensors") for rank in range(world)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_ranks_find_what_one_process_finds_on_the_whole_batch(case: str, of_ranks: list[Results]) -> None:
    """Every rank knows the loss; shares and gradients add up to the whole batch's."""
    for name, expected in CASES[case](0, len(GROUPS)).items():
        parts = [found[f"{case}.{name}"] for found in of_ranks]
        if name in ("value", "excess"):
            for part in parts:
                torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12, msg=name)
        else:
            whole = torch.cat(parts) if name == "images.grad" else torch.stack(parts).sum(0)
            torch.testing.assert_close(whole, expected, rtol=1e-10, atol=1e-12, msg=name)


def test_without_any_valid_anchor_the_loss_is_zero() -> None:
    """Not 0 / 0: no NaN reaches the weights."""
    nothing = torch.zeros(())
    assert [part.item() for part in mean_over_ranks(LossSums(nothing, nothing, nothing))] == [0, 0, 0]


if __name__ == "__main__":
    _run_rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
