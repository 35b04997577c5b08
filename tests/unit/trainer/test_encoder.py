"""Encoders of several architectures: features, seeds, files, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from protocol.errors import UserError
from trainer.encoder import build_encoder

RESNET: dict[str, Any] = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
}
VIT: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 8,
}
CONVNEXT: dict[str, Any] = {
    "model_type": "convnextv2",
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "num_stages": 2,
}
ENCODERS = {"resnet": (RESNET, 16), "vit": (VIT, 16), "convnextv2": (CONVNEXT, 16)}


@pytest.mark.parametrize(("config", "dim"), ENCODERS.values(), ids=ENCODERS.keys())
def test_features_are_flat_and_every_trainable_weight_gets_a_gradient(
    config: dict[str, Any], dim: int
) -> None:
    """[N, F] features; no parameter that the optimizer holds is left out of the gradient."""
    encoder = build_encoder(config, 32, seed=0)
    features = encoder(torch.randn(4, 3, 32, 32))
    assert features.shape == (4, dim)
    assert encoder.dim == dim
    assert encoder.training
    features.square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


def test_features_of_a_vit_are_its_cls_token_and_of_a_resnet_its_mean_map() -> None:
    """Compared with the model's own last hidden state."""
    images = torch.randn(2, 3, 32, 32)
    vit = build_encoder(VIT, 32, seed=0).eval()
    torch.testing.assert_close(vit(images), vit.backbone(images).last_hidden_state[:, 0])
    resnet = build_encoder(RESNET, 32, seed=0).eval()
    torch.testing.assert_close(resnet(images), resnet.backbone(images).last_hidden_state.mean(dim=(2, 3)))


@pytest.mark.parametrize("config", [RESNET, VIT, CONVNEXT], ids=["resnet", "vit", "convnextv2"])
def test_weights_depend_on_the_seed_alone(config: dict[str, Any]) -> None:
    """Building neither reads nor moves the global random state."""
    torch.manual_seed(1)
    first = build_encoder(config, 32, seed=4)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    second, other = build_encoder(config, 32, seed=4), build_encoder(config, 32, seed=5)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("config", [RESNET, VIT], ids=["resnet", "vit"])
def test_a_saved_encoder_loads_with_transformers_alone(config: dict[str, Any], tmp_path: Path) -> None:
    """AutoModel.from_pretrained and `folder` give the same features; running statistics are included."""
    encoder = build_encoder(config, 32, seed=0)
    encoder(torch.randn(8, 3, 32, 32))
    encoder.eval().save(tmp_path / "encoder")
    images = torch.randn(2, 3, 32, 32)
    plain = AutoModel.from_pretrained(tmp_path / "encoder").eval()
    torch.testing.assert_close(
        plain(images).last_hidden_state, encoder.backbone(images).last_hidden_state, rtol=0, atol=0
    )
    again = build_encoder({"folder": str(tmp_path / "encoder")}, 32, seed=9).eval()
    torch.testing.assert_close(again(images), encoder(images), rtol=0, atol=0)
    assert list((tmp_path / "encoder").glob("*.bin")) == []


REFUSED = {
    "unknown type": ({"model_type": "resnett"}, "resnett"),
    "no type": ({}, "model_type"),
    "misspelt field": ({**RESNET, "layer_typ": "basic"}, "`layer_type`"),
    "wrong value": ({**RESNET, "layer_type": "round"}, "round"),
    "wrong kind": ({**RESNET, "depths": "deep"}, "depths"),
    "another input size": ({**VIT, "image_size": 64}, "image_size = 64"),
    "no heads": ({**VIT, "num_attention_heads": 0}, "vit"),
    "text model": (
        {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
        "bert",
    ),
    "no such folder": ({"folder": "/nowhere"}, "/nowhere"),
}


@pytest.mark.parametrize(("config", "named"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_config_is_refused_in_one_line(config: dict[str, Any], named: str) -> None:
    """The message names the key of the run file and what is wrong with it."""
    with pytest.raises(UserError, match=r"^model\.encoder: ") as refusal:
        build_encoder(config, 32, seed=0)
    text = str(refusal.value)
    assert named in text
    assert "\n" not in text
