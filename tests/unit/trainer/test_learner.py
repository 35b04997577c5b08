"""One learner: it learns, it comes back from its tensors bit for bit, and it stops before a bad update."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from protocol.errors import UserError
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.checkpoint import Checkpoints, TrainedState
from trainer.config import TrainerConfig
from trainer.encoder import build_encoder
from trainer.errors import NonFiniteLossError
from trainer.learner import Learner
from trainer.plan import Plan

ENCODER = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}


def _config(**train: Any) -> TrainerConfig:
    tables = {
        "run": {"max_steps": 200},
        "generation": {"views": 3, "size": 16},
        "model": {"encoder": ENCODER, "head_hidden": 32, "head_out": 16},
        "train": {
            "batch_groups": 4,
            "warmup_steps": 2,
            "lr": 3e-3,
            "precision": "float32",
            "device": "cpu",
            **train,
        },
        "augment": {"crop_size": 16, "strength": "weak"},
    }
    return msgspec.convert(tables, TrainerConfig, strict=False)


CONFIG = _config()
PLAN = Plan(Captions([f"c{i}" for i in range(20)]), 0, CONFIG.generation)


def _batch(step: int) -> Batch:
    """Four captions of one colour each, three noisy views."""
    groups = []
    for group_id in range(4):
        rng = np.random.default_rng([step, group_id])
        images = (
            rng.integers(0, 60, (3, 16, 16, 3)) + np.array([40, 80, 120]) * (group_id % 2) + 20 * group_id
        )
        groups.append(
            DrawnGroup(
                ticket=PLAN.ticket(group_id),
                images_NHWC=images.clip(0, 255).astype(np.uint8),
                source="online",
                worker="w",
                content="c",
                engine="e",
                digest="0" * 16,
                arrived_seconds=0.0,
            )
        )
    return Batch(step=step, groups=tuple(groups), uses=(1,) * 4)


def test_the_loss_falls_towards_its_floor() -> None:
    """Colours are easily told apart: the excess over the floor drops by more than half in 40 steps."""
    learner = Learner(CONFIG)
    results = [learner.step(_batch(step)) for step in range(1, 41)]
    first, last = results[0], results[-1]
    assert last.loss_excess < 0.5 * first.loss_excess
    assert first.loss == pytest.approx(first.loss_excess + np.log(2), abs=1e-5), "two positives an anchor"
    measures = last.measures()
    assert set(measures) == {
        "alignment",
        "uniformity",
        "rankme",
        "positive_similarity",
        "negative_similarity",
    }
    # Of unit vectors: the squared distance is 2 - 2 x the cosine.
    assert measures["alignment"] == pytest.approx(2 - 2 * measures["positive_similarity"], abs=1e-5)
    assert measures["negative_similarity"] < measures["positive_similarity"]
    assert first.lr == pytest.approx(1.5e-3)


def test_a_learner_comes_back_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    """Weights, AdamW's averages and statistics: the next losses are the same numbers."""
    one = Learner(CONFIG)
    for step in range(1, 4):
        one.step(_batch(step))
    state = TrainedState(
        step=3,
        plan="p",
        content="",
        done_low=0,
        done_above=(),
        dead_letters={},
        ring=(),
        groups_trained=0,
        uses=0,
        images_received=0,
        wait_seconds=0.0,
        train_seconds=0.0,
    )
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, one.tensors())
    loaded = checkpoints.latest()
    assert loaded is not None
    other = Learner(CONFIG)
    other.load(loaded[1])
    assert [one.step(_batch(s)).loss for s in (4, 5, 6)] == [other.step(_batch(s)).loss for s in (4, 5, 6)]


def test_two_learners_of_one_seed_are_the_same_and_of_another_are_not() -> None:
    """Weights come from the run's seed alone, whatever was drawn from torch before."""
    first = Learner(CONFIG).step(_batch(1)).loss
    torch.randn(100)
    assert Learner(CONFIG).step(_batch(1)).loss == first
    other = msgspec.structs.replace(CONFIG, run=msgspec.structs.replace(CONFIG.run, seed=1))
    assert Learner(other).step(_batch(1)).loss != first


def test_a_loss_that_is_no_number_stops_before_the_weights_change() -> None:
    """The error names the step; the last good weights can still be saved."""
    learner = Learner(CONFIG)
    learner.step(_batch(1))
    with torch.no_grad():
        learner.objective.parts.head.out.weight.fill_(float("nan"))
    before = {name: tensor.clone() for name, tensor in learner.encoder.state_dict().items()}
    with pytest.raises(
        NonFiniteLossError, match=r"the loss of step 2 .*learning rate of 0\.003; lower train\.lr"
    ):
        learner.step(_batch(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.encoder.state_dict().items())


def test_a_gradient_that_is_no_number_stops_before_the_weights_change() -> None:
    """A finite loss may have an infinite gradient, which would be in the next checkpoint."""
    learner = Learner(CONFIG)
    learner.step(_batch(1))
    before = {name: tensor.clone() for name, tensor in learner.tensors().items()}
    learner.objective.parts.head.out.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLossError, match="the gradient of step 2"):
        learner.step(_batch(2))
    after = learner.tensors()
    assert [name for name, tensor in before.items() if not torch.equal(tensor, after[name])] == []


def test_the_average_follows_its_recurrence_and_is_what_is_exported(tmp_path: Path) -> None:
    """d x average + (1 - d) x weight, d ramped up to the decay, for each weight and each statistic."""
    learner = Learner(_config(ema_decay=0.3, export="ema"))
    expected = {name: value.clone() for name, value in learner.encoder.state_dict().items()}
    for step, decay in ((1, 2 / 11), (2, 3 / 12), (3, 0.3), (4, 0.3)):
        learner.step(_batch(step))
        for name, value in learner.encoder.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    found = {
        name.removeprefix("ema."): value
        for name, value in learner.tensors().items()
        if name.startswith("ema.")
    }
    torch.testing.assert_close(found, expected)
    learner.save_encoder(tmp_path)
    saved = build_encoder({"folder": str(tmp_path)}, 16, seed=0).eval()
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(learner.encode(images), saved(images))
    last = Learner(_config())
    last.load({name: value for name, value in learner.tensors().items() if not name.startswith("ema.")})
    assert not torch.allclose(last.encode(images), learner.encode(images))


FEATURES_ALONE = """
import sys
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
images = load_file("images")["images"]
for name in ("resnet", "vit"):
    model = AutoModel.from_pretrained(name).eval()
    with torch.no_grad():
        hidden = model(images).last_hidden_state
    features = hidden[:, 0] if hidden.dim() == 3 else hidden.mean(dim=(2, 3))
    save_file({"features": features.contiguous()}, f"features of {name}")
assert not {"trainer", "protocol"} & set(sys.modules)
"""
TRANSFORMER = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 4,
}


def test_trained_encoders_give_the_same_features_to_transformers_alone(tmp_path: Path) -> None:
    """In a fresh process that never imports this project, to 1e-5; a ResNet, and the average of a ViT."""
    averaged = _config(ema_decay=0.5, export="ema")
    model = msgspec.structs.replace(averaged.model, encoder=TRANSFORMER)
    images, expected = torch.randn(5, 3, 16, 16), {}
    save_file({"images": images}, tmp_path / "images")
    for name, config in (("resnet", CONFIG), ("vit", msgspec.structs.replace(averaged, model=model))):
        learner = Learner(config)
        for step in (1, 2, 3):
            learner.step(_batch(step))
        learner.save_encoder(tmp_path / name)
        expected[name] = learner.encode(images)
    words = [sys.executable, "-I", "-c", FEATURES_ALONE]
    subprocess.run(words, check=True, timeout=100, cwd=tmp_path)
    for name, features in expected.items():
        found = load_file(tmp_path / f"features of {name}")["features"]
        torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5)


def test_an_average_is_kept_beside_training_and_comes_back() -> None:
    """It changes no loss, is not what is exported unless asked for, and resumes from its tensors."""
    plain, averaged = Learner(CONFIG), Learner(_config(ema_decay=0.9))
    losses = [[learner.step(_batch(step)).loss for step in (1, 2, 3)] for learner in (plain, averaged)]
    assert losses[0] == losses[1]
    images = torch.randn(5, 3, 16, 16)
    assert torch.equal(plain.encode(images), averaged.encode(images))
    other = Learner(_config(ema_decay=0.9))
    other.load({name: value.clone() for name, value in averaged.tensors().items()})
    averaged.step(_batch(4))
    other.step(_batch(4))
    one, two = averaged.tensors(), other.tensors()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("began", "goes_on"), [(0.0, 0.9), (0.9, 0.0)])
def test_a_checkpoint_with_and_a_run_without_an_average_are_refused(began: float, goes_on: float) -> None:
    """And the other way round: one line that names the setting."""
    tensors = Learner(_config(ema_decay=began)).tensors()
    with pytest.raises(UserError, match=r"train\.ema_decay") as caught:
        Learner(_config(ema_decay=goes_on)).load(tensors)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_one_line() -> None:
    """Names the section and what differs."""
    tensors = Learner(CONFIG).tensors()
    wider = msgspec.structs.replace(CONFIG, model=msgspec.structs.replace(CONFIG.model, head_out=8))
    with pytest.raises(UserError, match="another model") as caught:
        Learner(wider).load(tensors)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_one_line() -> None:
    """And the way out."""
    with pytest.raises(UserError, match=r"--train\.device cpu"):
        Learner(_config(device="cuda:99"))


def test_encode_gives_float32_features_and_leaves_training_alone() -> None:
    """Evaluation mode, no gradient."""
    learner = Learner(CONFIG)
    images = torch.randn(5, 3, 16, 16)
    features = learner.encode(images)
    assert features.shape == (5, 16)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert torch.equal(features, learner.encode(images))
