"""Every objective behind the one step interface: what it computes, that it learns, that it comes back."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, ViTModel

from protocol.errors import UserError
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.class_names import ClassNames
from trainer.config import TrainerConfig
from trainer.image_text_folder import FOLDER, load_image_text
from trainer.learner import Learner
from trainer.objectives.needs import NEEDS
from trainer.objectives.objective import Targets
from trainer.plan import Plan

VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 4,
}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MAE = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
VIEWS = {"simclr": 1, "clip": 1, "mae": 2}
CLASSES = ClassNames(["fish", "rose"])
NAMES = tuple(NEEDS)


def config_of(objective: str, **train: Any) -> TrainerConfig:
    tables = {
        "run": {"max_steps": 200},
        "captions": {"classes": "classes.txt"},
        "generation": {"views": VIEWS.get(objective, 3), "size": 16},
        "model": {
            "encoder": VIT,
            "head_hidden": 32,
            "head_out": 16,
            "text": {**TEXT, "projection_dim": 12},
            "mae": MAE,
        },
        "train": {
            "objective": objective,
            "batch_groups": 6,
            "warmup_steps": 2,
            "lr": 3e-3,
            "precision": "float32",
            "device": "cpu",
            **train,
        },
        "augment": {"crop_size": 16, "strength": "weak"},
    }
    return msgspec.convert(tables, TrainerConfig, strict=False)


def learner_of(config: TrainerConfig) -> Learner:
    return Learner(config, CLASSES.class_of if config.train.objective == "supcon" else None)


def batch_of(config: TrainerConfig, step: int, group_ids: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> Batch:
    """Groups whose captions each have a colour of their own, with noise."""
    captions = Captions(f"a {'fish' if i % 2 else 'rose'} of kind {i}" for i in range(6))
    plan = Plan(captions, 0, config.generation)
    groups = []
    for group_id in group_ids:
        ticket = plan.ticket(group_id)
        rng = np.random.default_rng([step, group_id])
        colour = np.random.default_rng(ticket.caption_id).integers(0, 200, 3)
        images = rng.integers(0, 55, (config.generation.views, 16, 16, 3)) + colour
        groups.append(
            DrawnGroup(
                ticket=ticket,
                images_NHWC=images.astype(np.uint8),
                source="online",
                worker="w",
                content="c",
                engine="e",
                digest="0" * 16,
                arrived_seconds=0.0,
            )
        )
    return Batch(step=step, groups=tuple(groups), uses=(1,) * len(groups))


@pytest.mark.parametrize("name", NAMES)
def test_learns(name: str) -> None:
    """The excess over the floor falls, every trainable weight moves, and the loss is at least its floor."""
    config = config_of(name)
    learner = learner_of(config)
    parts = {"encoder": learner.encoder, **learner.objective.parts}
    before = {
        f"{part}.{key}": value.clone()
        for part, module in parts.items()
        for key, value in module.named_parameters()
        if value.requires_grad
    }
    results = [learner.step(batch_of(config, step)) for step in range(1, 31)]
    assert 0 < results[-1].loss_excess < 0.8 * results[0].loss_excess
    assert results[0].loss >= results[0].loss_excess
    still = [
        f"{part}.{key}"
        for part, module in parts.items()
        for key, value in module.named_parameters()
        if value.requires_grad and torch.equal(before[f"{part}.{key}"], value)
    ]
    # A word that no caption has, and a position that none reaches, get no gradient; their weight only decays.
    assert still == []


@pytest.mark.parametrize("name", NAMES)
def test_tells_the_rank_and_the_spread_of_the_encoders_features(name: str) -> None:
    """RankMe by numpy's singular values, of a batch in parts. Without a projection similarities are of the
    features as well."""
    config = config_of(name, micro_batch=5)
    result = learner_of(config).step(batch_of(config, 1))
    features = result.features_NF.double().numpy()
    assert features.shape == (config.batch_images, VIT["hidden_size"])
    values = np.linalg.svd(features, compute_uv=False)
    share = values / values.sum() + 1e-7
    measures = result.measures()
    assert measures["rankme"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)
    assert measures["uniformity"] < 0
    assert ("alignment" in measures) == (len(set(result.ids_N.tolist())) < config.batch_images)
    if name == "mae":
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        different = result.ids_N[:, None].numpy() != result.ids_N.numpy()
        assert measures["negative_similarity"] == pytest.approx((unit @ unit.T)[different].mean(), rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_comes_back_from_its_tensors_bit_for_bit(name: str) -> None:
    """Weights, decoder, text tower, scale and AdamW's averages: the next losses are the same numbers."""
    config = config_of(name)
    one = learner_of(config)
    for step in (1, 2):
        one.step(batch_of(config, step))
    other = learner_of(config)
    other.load({key: value.clone() for key, value in one.tensors().items()})
    for step in (3, 4):
        assert one.step(batch_of(config, step)).loss == other.step(batch_of(config, step)).loss


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_is_saved_as_a_plain_vision_model(name: str, tmp_path: Path) -> None:
    """`AutoModel` gives a ViT with the same features, whatever the objective."""
    config = config_of(name)
    learner = learner_of(config)
    learner.step(batch_of(config, 1))
    learner.save_encoder(tmp_path)
    saved = AutoModel.from_pretrained(tmp_path).eval()
    assert type(saved) is ViTModel
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected = saved(pixel_values=images).last_hidden_state[:, 0]
    torch.testing.assert_close(learner.encode(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["stablerep+", "clip"])
def test_the_text_tower_is_averaged_exported_and_resumed_as_the_encoder_is(name: str, tmp_path: Path) -> None:
    """Tower, projection and scale follow the recurrence of the average; no head does, and no loss changes."""
    config = config_of(name, ema_decay=0.25, export="ema")
    learner, plain = learner_of(config), learner_of(config_of(name))
    parts = {"text": learner.objective.parts["text"], "image_text": learner.objective.parts["image_text"]}

    def weights() -> dict[str, Tensor]:
        found = {f"{part}.{key}": value for part in parts for key, value in parts[part].state_dict().items()}
        return {key: value.clone() for key, value in (learner.encoder.state_dict() | found).items()}

    expected = weights()
    for step, decay in ((1, 2 / 11), (2, 0.25), (3, 0.25)):
        assert learner.step(batch_of(config, step)).loss == plain.step(batch_of(config, step)).loss
        for key, value in weights().items():
            assert value.is_floating_point()
            expected[key] = decay * expected[key] + (1 - decay) * value
    found = {key[4:]: value for key, value in learner.tensors().items() if key.startswith("ema.")}
    torch.testing.assert_close(found, expected)

    learner.save_encoder(tmp_path)
    saved = load_image_text(tmp_path / FOLDER, torch.device("cpu"))
    with torch.no_grad():
        texts = saved.texts(["a fish of kind 1", "a rose"])
        last = functional.normalize(parts["text"].eval()(["a fish of kind 1", "a rose"]), dim=1)
        features = torch.randn(4, 16)
        projected = functional.normalize(features @ expected["image_text.projection.weight"].T, dim=1)
    torch.testing.assert_close(saved.images(features), projected)
    assert not torch.allclose(texts, last, atol=1e-5)
    averaged = {key[5:]: value for key, value in expected.items() if key.startswith("text.")}
    parts["text"].load_state_dict(averaged)
    with torch.no_grad():
        last = functional.normalize(parts["text"](["a fish of kind 1", "a rose"]), dim=1)
    torch.testing.assert_close(texts, last)


def test_an_averaged_text_tower_comes_back_bit_for_bit() -> None:
    """From the tensors of a checkpoint; one without the tower's average is refused in one line."""
    config = config_of("clip", ema_decay=0.9)
    one = learner_of(config)
    for step in (1, 2):
        one.step(batch_of(config, step))
    kept = {key: value.clone() for key, value in one.tensors().items()}
    other = learner_of(config)
    other.load(kept)
    for learner in (one, other):
        learner.step(batch_of(config, 3))
    again = other.tensors()
    assert [key for key, value in one.tensors().items() if not torch.equal(value, again[key])] == []
    without = {key: value for key, value in kept.items() if not key.startswith("ema.text.")}
    with pytest.raises(UserError, match=r"train\.ema_decay") as caught:
        other.load(without)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["stablerep+", "simclr", "mae"])
def test_parts_of_a_batch_train_as_the_whole_does(name: str) -> None:
    """With `micro_batch` the losses of the next steps are the same to float32's precision."""
    whole, parts = config_of(name), config_of(name, micro_batch=5)
    losses = [
        [learner.step(batch_of(config, step)).loss for step in (1, 2, 3)]
        for config in (whole, parts)
        for learner in [learner_of(config)]
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_simclr_sees_each_image_under_two_augmentations() -> None:
    """12 rows of 6 images, whose pairs have the same caption and other pixels."""
    config = config_of("simclr")
    batch = batch_of(config, 1)
    keys = batch.keys(0, crops=2)
    assert len(set(keys)) == 12
    assert keys[::2] == batch.keys(0), "the first crop is the one that other objectives see"
    result = learner_of(config).step(batch)
    assert result.ids_N.tolist() == [i for i in batch.caption_ids().tolist() for _ in range(2)]
    assert result.features_NF.shape == (12, 16)
    assert not torch.equal(result.features_NF[0], result.features_NF[1])
    assert config.batch_images == 12


def _targets(ids: list[int]) -> Targets:
    return Targets(
        ids_N=torch.tensor(ids), classes_N=None, captions={i: f"a {i}" for i in dict.fromkeys(ids)}
    )


def _cross_entropy(logits: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """Mean over rows of -1/|P| x the sum over positive columns of log softmax, in plain loops."""
    losses = []
    for i, row in enumerate(rows):
        logs = logits[i] - logits[i].exp().sum().log()
        positives = [j for j, column in enumerate(columns) if column == row]
        losses.append(-sum(logs[j] for j in positives) / len(positives))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_stablerep_plus_is_the_image_loss_and_the_mean_of_both_text_terms(weight: float) -> None:
    """w1 = 1, w2 = text_weight; a caption that comes twice is one column, with all its images."""
    config = config_of("stablerep+", text_weight=weight)
    learner = learner_of(config)
    objective = learner.objective
    features = torch.randn(9, 16, generator=torch.Generator().manual_seed(0))
    ids = [5, 5, 5, 8, 8, 8, 5, 5, 5]
    parts = objective.parts.double().eval()
    found = objective.loss(features.double(), _targets(ids))
    projected = functional.normalize(parts["head"](features.double()), dim=1)
    itself = torch.eye(9, dtype=torch.bool)
    logits = (projected @ projected.T / 0.1).masked_fill(itself, -1e300)
    expected = torch.stack(
        [
            -sum(logits[i, j] - logits[i].exp().sum().log() for j in range(9) if j != i and ids[j] == ids[i])
            / sum(ids[j] == ids[i] for j in range(9) if j != i)
            for i in range(9)
        ]
    ).mean()
    images = functional.normalize(parts["image_text"](features.double()), dim=1)
    texts = functional.normalize(parts["text"](["a 5", "a 8"]), dim=1)
    logits = images @ texts.T / 0.07
    text_loss = (_cross_entropy(logits, ids, [5, 8]) + _cross_entropy(logits.T, [5, 8], ids)) / 2
    torch.testing.assert_close(found.loss.value, expected + weight * text_loss, rtol=1e-6, atol=0)
    floor = (6 * math.log(5) + 3 * math.log(2)) / 9 + weight * (math.log(6) + math.log(3)) / 4
    assert (found.loss.value - found.loss.excess).item() == pytest.approx(floor)


def test_each_distinct_caption_is_encoded_once() -> None:
    """A caption of two groups in a batch goes through the text tower as one row."""
    config = config_of("clip")
    learner = learner_of(config)
    seen: list[Tensor] = []
    learner.objective.parts["text"].register_forward_hook(lambda *call: seen.append(call[2]))
    learner.step(batch_of(config, 1, group_ids=(0, 1, 2, 3, 4, 5, 6, 7)))
    assert [len(texts) for texts in seen] == [6]


def test_the_scale_is_learnt_and_stays_within_its_bounds() -> None:
    """It begins at 1 / 0.07, moves, is never decayed, and is cut to 1..100 after each update."""
    config = config_of("clip", lr=1e-3)
    learner = learner_of(config)
    head = learner.objective.parts["image_text"]
    assert head.log_scale.exp().item() == pytest.approx(1 / 0.07)
    learner.step(batch_of(config, 1))
    assert head.log_scale.exp().item() != pytest.approx(1 / 0.07, rel=1e-6)
    for outside, bound in ((9.0, math.log(100)), (-3.0, 0.0)):
        with torch.no_grad():
            head.log_scale.fill_(outside)
        learner.step(batch_of(config, 2))
        assert head.log_scale.item() == pytest.approx(bound)


def test_supcon_takes_the_classes_of_captions_as_labels() -> None:
    """Six captions of two classes: each of 18 images has 8 positives."""
    config = config_of("supcon")
    result = learner_of(config).step(batch_of(config, 1))
    assert result.loss - result.loss_excess == pytest.approx(math.log(8), abs=1e-5)


@pytest.mark.parametrize(
    ("objective", "model", "words"),
    [
        (
            "clip",
            {"text": {"hiden_size": 16}},
            "model.text: the text tower has no such field: expected `hidden_size`",
        ),
        ("clip", {"text": {"vocab_size": 5}}, "got `vocab_size`; leave it out"),
        ("clip", {"text": {**TEXT, "num_attention_heads": 3}}, "model.text: transformers cannot build"),
        ("clip", {"tokenizer": "/nowhere"}, "/nowhere: no tokenizer"),
        ("mae", {"mae": {"mask_ration": 0.5}}, "expected `mask_ratio`"),
        ("mae", {"mae": {"hidden_size": 16}}, "model.mae: the masked autoencoder has no such field"),
        ("mae", {"mae": {**MAE, "mask_ratio": 0.0}}, "hides none or all of 16 patches"),
        ("mae", {"mae": {**MAE, "decoder_hidden_size": 15}}, "model.mae: transformers cannot build"),
    ],
)
def test_what_the_parts_cannot_be_is_one_line(objective: str, model: dict[str, Any], words: str) -> None:
    """The field, what was expected, and the way out."""
    config = config_of(objective)
    given = {key: getattr(config.model, key) for key in ("text", "tokenizer", "mae")} | model
    with pytest.raises(UserError) as caught:
        learner_of(msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, **given)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mae_refuses_a_saved_encoder_that_is_no_vit(tmp_path: Path) -> None:
    """What a folder holds is known only when it is read."""
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
    config = config_of("stablerep")
    other = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, encoder=resnet))
    Learner(other).save_encoder(tmp_path)
    config = config_of("mae")
    folder = {"folder": str(tmp_path)}
    with pytest.raises(UserError, match=r"model\.encoder: mae can't train this encoder.*got ResNetModel"):
        Learner(msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, encoder=folder)))
