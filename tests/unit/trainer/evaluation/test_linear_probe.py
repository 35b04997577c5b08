"""The linear probe against one classifier trained by itself, and against its own interruption."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trainer.evaluation.linear import hold_out
from trainer.evaluation.linear_probe import BASE_LRS, NORMS, Asked, LinearProbe, run_probe

EPOCHS, BATCH, PER_EPOCH = 13, 8, 2
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(EPOCHS, PER_EPOCH, BATCH, 6, generator=GENERATOR)
LABELS = torch.randint(0, 3, (EPOCHS, PER_EPOCH, BATCH), generator=GENERATOR)
CHOSEN_ON = Asked(torch.randn(40, 6, generator=GENERATOR), torch.randint(0, 3, (40,), generator=GENERATOR))
TEST = Asked(torch.randn(30, 6, generator=GENERATOR), torch.randint(0, 3, (30,), generator=GENERATOR))


def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(FEATURES[epoch], LABELS[epoch], strict=True)


def probe() -> LinearProbe:
    return LinearProbe(6, 3, batch_images=BATCH, total_steps=EPOCHS * PER_EPOCH, seed=0)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("base_lr", [0.001, 0.5])
def test_every_head_learns_as_if_it_were_alone(tmp_path: Path, norm: str, base_lr: float) -> None:
    """Momentum by hand, cosine by step, batch statistics of its own: the same weights and predictions."""
    together = probe()
    key = f"{norm}-{base_lr:g}".replace(".", "_")
    alone = nn.Linear(6, 3)
    alone.load_state_dict(together.heads[key].state_dict())
    bn = nn.BatchNorm1d(6, affine=False, eps=1e-6) if norm == "batch_norm" else nn.Identity()
    run_probe(together, batches, CHOSEN_ON, TEST, epochs=EPOCHS, state=tmp_path / "state")
    speed = [torch.zeros_like(weight) for weight in alone.parameters()]
    for step in range(EPOCHS * PER_EPOCH):
        x, y = FEATURES.flatten(0, 1)[step], LABELS.flatten(0, 1)[step]
        gradients = torch.autograd.grad(
            nn.functional.cross_entropy(alone(bn(x)), y), list(alone.parameters())
        )
        lr = base_lr * BATCH / 256 * 0.5 * (1 + math.cos(math.pi * step / (EPOCHS * PER_EPOCH)))
        with torch.no_grad():
            for weight, v, gradient in zip(alone.parameters(), speed, gradients, strict=True):
                v.mul_(0.9).add_(gradient)
                weight.sub_(lr * v)
    torch.testing.assert_close(together.heads[key].state_dict(), alone.state_dict())
    expected = (alone(bn.eval()(CHOSEN_ON.features_NF)).argmax(1) == CHOSEN_ON.labels_N).double().mean()
    assert together.curve[-1][key] == pytest.approx(expected.item())


def test_the_best_head_and_epoch_are_those_of_the_curve(tmp_path: Path) -> None:
    """Judged after epoch 10 and the last; chosen without a look at the test features."""
    done = run_probe(probe(), batches, CHOSEN_ON, TEST, epochs=EPOCHS, state=tmp_path / "state")
    assert [row["epoch"] for row in done.curve] == [10, 13]
    for norm in NORMS:
        scores = [row[f"{norm}-{lr:g}".replace(".", "_")] for row in done.curve for lr in BASE_LRS]
        assert done.best[norm].score == max(scores)
        where = scores.index(max(scores))
        assert done.best[norm].epoch == (10, 13)[where // len(BASE_LRS)]
        assert done.best[norm].base_lr == BASE_LRS[where % len(BASE_LRS)]
    other_test = Asked(TEST.features_NF, 2 - TEST.labels_N)
    again = run_probe(probe(), batches, CHOSEN_ON, other_test, epochs=EPOCHS, state=tmp_path / "other")
    for norm in NORMS:
        assert torch.equal(again.best[norm].predicted_N, done.best[norm].predicted_N)


def test_an_interrupted_probe_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """Stopped in the middle of epoch 12: the state of epoch 11 and what was judged before are taken up."""
    whole = run_probe(probe(), batches, CHOSEN_ON, TEST, epochs=EPOCHS, state=tmp_path / "whole")

    def failing(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for number, batch in enumerate(batches(epoch)):
            if (epoch, number) == (11, 1):
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        run_probe(probe(), failing, CHOSEN_ON, TEST, epochs=EPOCHS, state=tmp_path / "part")
    resumed = run_probe(probe(), batches, CHOSEN_ON, TEST, epochs=EPOCHS, state=tmp_path / "part")
    torch.testing.assert_close(resumed.heads.state_dict(), whole.heads.state_dict(), rtol=0, atol=0)
    assert resumed.curve == whole.curve
    for norm in NORMS:
        assert resumed.best[norm][:3] == whole.best[norm][:3]
        assert torch.equal(resumed.best[norm].predicted_N, whole.best[norm].predicted_N)


def test_a_tenth_is_held_out_by_the_seed() -> None:
    """Both parts together are all rows, each once."""
    kept, held = hold_out(105, 1)
    assert (len(kept), len(held)) == (95, 10)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(105))
    assert torch.equal(held, hold_out(105, 1)[1])
    assert not torch.equal(held, hold_out(105, 2)[1])
