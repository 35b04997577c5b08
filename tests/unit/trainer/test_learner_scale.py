"""float16, compiling and checkpointing: what they change, and what they must not."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from protocol.errors import UserError
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.config import TrainerConfig
from trainer.errors import NonFiniteLossError
from trainer.learner import Learner
from trainer.plan import Plan

VIT = {
    "model_type": "vit",
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def _config(**train: Any) -> TrainerConfig:
    tables = {
        "run": {"max_steps": 50},
        "generation": {"views": 2, "size": 16},
        "model": {"encoder": VIT, "head_hidden": 32, "head_out": 16},
        "train": {"batch_groups": 4, "warmup_steps": 2, "lr": 3e-3, "device": "cpu", **train},
        "augment": {"crop_size": 16, "strength": "weak"},
    }
    return msgspec.convert(tables, TrainerConfig, strict=False)


PLAN = Plan(Captions([f"c{i}" for i in range(20)]), 0, _config().generation)


def _batch(step: int) -> Batch:
    images = np.random.default_rng(step).integers(0, 256, (4, 2, 16, 16, 3), dtype=np.uint8)
    groups = [
        DrawnGroup(
            ticket=PLAN.ticket(i),
            images_NHWC=images[i],
            source="online",
            worker="w",
            content="c",
            engine="e",
            digest="0" * 16,
            arrived_seconds=0.0,
        )
        for i in range(4)
    ]
    return Batch(step=step, groups=tuple(groups), uses=(1,) * 4)


def _weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.encoder.state_dict().items()}


def _with_scale(learner: Learner, scale: float) -> dict[str, torch.Tensor]:
    return {**learner.tensors(), "scaler.state": torch.tensor([scale, 0.0], dtype=torch.float64)}


def test_float16_learns_what_float32_learns() -> None:
    """Losses of three steps agree to 2%; the scale is in the measures, and only in float16."""
    half, full = (Learner(_config(precision=name, lr=1e-4)) for name in ("float16", "float32"))
    # The scale that a run begins with is meant to be too large: the first steps find the one that fits.
    half.load(_with_scale(half, 16.0))
    for step in range(1, 4):
        one, other = half.step(_batch(step)), full.step(_batch(step))
        assert one.loss == pytest.approx(other.loss, rel=0.02)
    assert one.measures()["loss_scale"] == 16
    assert "loss_scale" not in other.measures()


def test_a_float16_gradient_that_overflows_leaves_the_weights_and_halves_the_scale() -> None:
    """Until it fits: then the weights move. The scale comes back with the checkpoint."""
    learner = Learner(_config(precision="float16"))
    learner.load(_with_scale(learner, 256.0))
    learner.step(_batch(1))
    factor = [float("inf")]
    weight = next(learner.encoder.parameters())
    weight.register_hook(lambda gradient: gradient * factor[0])
    before = _weights(learner)
    for step, scale in ((2, 128), (3, 64)):
        assert learner.step(_batch(step)).loss_scale == scale
    after = _weights(learner)
    assert all(torch.equal(before[name], after[name]) for name in before)
    factor[0] = 1.0
    resumed = Learner(_config(precision="float16"))
    resumed.load(learner.tensors())
    assert resumed.step(_batch(4)).loss_scale == 64
    moved = _weights(resumed)
    assert not all(torch.equal(before[name], moved[name]) for name in before)


def test_a_gradient_that_never_fits_ends_a_float16_run() -> None:
    """At a scale of 1 there is nothing left to halve: the error names step and setting."""
    learner = Learner(_config(precision="float16"))
    next(learner.encoder.parameters()).register_hook(lambda gradient: gradient * float("inf"))
    scales = [learner.step(_batch(step)).loss_scale for step in range(1, 17)]
    assert scales == [2.0**power for power in range(15, -1, -1)]
    with pytest.raises(NonFiniteLossError, match=r"the gradient of step 17 .*lower train\.lr"):
        learner.step(_batch(17))


def test_checkpointed_layers_give_the_same_weights() -> None:
    """Recomputing changes nothing but time: after three steps the weights agree to rounding."""
    kept, computed = (Learner(_config(precision="float32", checkpointing=on)) for on in (False, True))
    for step in (1, 2, 3):
        kept.step(_batch(step))
        computed.step(_batch(step))
    assert computed.encoder.backbone.is_activation_checkpointing
    one, other = _weights(kept), _weights(computed)
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-5)


def test_an_encoder_that_cannot_be_checkpointed_is_refused() -> None:
    """One line that names the setting and a model that can."""
    encoder = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
    config = _config(checkpointing=True)
    config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, encoder=encoder))
    with pytest.raises(UserError, match=r"train\.checkpointing: .* such as vit, got resnet"):
        Learner(config)


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile uses what torch deprecates
def test_a_compiled_encoder_learns_the_same_and_is_saved_the_same() -> None:
    """Losses agree to rounding, and names of weights carry no trace of the compiler."""
    plain, compiled = (Learner(_config(precision="float32", compile=on)) for on in (False, True))
    for step in (1, 2):
        assert compiled.step(_batch(step)).loss == pytest.approx(plain.step(_batch(step)).loss, rel=1e-4)
    assert compiled.tensors().keys() == plain.tensors().keys()
