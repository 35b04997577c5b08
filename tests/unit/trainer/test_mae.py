"""The masked autoencoder around the run's own ViT, against transformers' forward pass and plain loops."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ViTMAEModel

from trainer.augment_parameters import uniforms
from trainer.encoder import Encoder, build_encoder
from trainer.objectives.mae import MaskedAutoencoder, build_mae
from trainer.objectives.objective import Targets

VIT: dict[str, Any] = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "patch_size": 4,
}
DECODER: dict[str, Any] = {
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
KEYS = [(0, 5, 0, 1), (0, 5, 1, 1), (0, 6, 0, 2)]
NO_TARGETS = Targets(ids_N=torch.zeros(3, dtype=torch.int64), classes_N=None, captions={})


def _images(seed: int = 0) -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def _build(**fields: Any) -> tuple[Encoder, MaskedAutoencoder]:
    encoder = build_encoder(VIT, 16, seed=0)
    return encoder, build_mae(encoder, DECODER | fields, seed=0, fresh=True)


def _captured(mae: MaskedAutoencoder, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What transformers' whole forward pass returns for the noise of each embedding."""
    outputs: list[Any] = []
    forward = ViTMAEModel.forward

    def record(vit: Any, pixel_values: Tensor, noise: Tensor) -> Any:
        monkeypatch.setattr(ViTMAEModel, "forward", forward)
        outputs.append(mae._model(pixel_values=pixel_values, noise=noise))
        monkeypatch.setattr(ViTMAEModel, "forward", record)
        return forward(vit, pixel_values=pixel_values, noise=noise)

    monkeypatch.setattr(ViTMAEModel, "forward", record)
    return outputs


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_the_loss_is_transformers_own(norm_pix_loss: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of the images' errors is what ViTMAEForPreTraining returns for the same noise."""
    _, mae = _build(norm_pix_loss=norm_pix_loss)
    outputs = _captured(mae, monkeypatch)
    outcome = mae.loss(mae.embed(_images(), KEYS), NO_TARGETS)
    torch.testing.assert_close(outcome.loss.value, outputs[0].loss.detach())
    torch.testing.assert_close(outcome.loss.excess, outcome.loss.value, msg="its floor is 0")


def test_an_images_error_is_the_mean_over_its_hidden_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """In plain loops over patches, rows, columns and channels."""
    _, mae = _build()
    outputs = _captured(mae, monkeypatch)
    images = _images()
    errors = mae.embed(images, KEYS)[:, 0]
    predicted, mask = outputs[0].logits, outputs[0].mask
    assert mask.sum(dim=1).tolist() == [12, 12, 12], "three quarters of 16 patches"
    for n in range(3):
        total = 0.0
        hidden = [p for p in range(16) if mask[n, p] == 1]
        for p in hidden:
            top, left = 4 * (p // 4), 4 * (p % 4)
            for y in range(4):
                for x in range(4):
                    for c in range(3):
                        pixel = images[n, c, top + y, left + x].item()
                        total += (predicted[n, p, (y * 4 + x) * 3 + c].item() - pixel) ** 2
        assert errors[n].item() == pytest.approx(total / (len(hidden) * 48), rel=1e-4)


def test_hidden_patches_depend_on_the_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the random state nor an image's neighbours matter; another use hides other patches."""
    _, mae = _build()
    outputs = _captured(mae, monkeypatch)
    mae.embed(_images(), KEYS)
    torch.randn(5)
    mae.embed(_images()[1:], KEYS[1:])
    mae.embed(_images(), [(seed, group, view, use + 1) for seed, group, view, use in KEYS])
    assert torch.equal(outputs[0].mask[1:], outputs[1].mask)
    assert not torch.equal(outputs[0].mask, outputs[2].mask)


def test_features_are_the_encoders_of_the_patches_that_are_seen() -> None:
    """Its CLS token over these alone, layer by layer; the loss is the same without them."""
    encoder, mae = _build()
    images = _images()
    embedded = mae.embed(images, KEYS)
    outcome = mae.loss(embedded, NO_TARGETS)
    assert outcome.features_NF.shape == (3, encoder.dim)
    assert not outcome.features_NF.requires_grad
    noise = torch.from_numpy(uniforms([(*key[:3], key[3] + (1 << 62)) for key in KEYS], 16))
    backbone: Any = encoder.backbone
    tokens = backbone.embeddings(images)
    for n in range(3):
        seen = [0, *(1 + noise[n].argsort()[:4])]
        hidden = tokens[n : n + 1, seen]
        for layer in backbone.layers:
            hidden = layer(hidden)
        expected = backbone.layernorm(hidden)[0, 0]
        torch.testing.assert_close(outcome.features_NF[n], expected.detach())
    assert mae.loss(embedded[:, :1], NO_TARGETS).loss.value == outcome.loss.value


def test_the_encoder_is_shared_and_its_positions_are_the_papers() -> None:
    """Sine and cosine of both axes, not trained. transformers 5.23 leaves them at zero in new models."""
    encoder, mae = _build()
    positions = encoder.backbone.get_parameter("embeddings.position_embeddings")
    assert not positions.requires_grad
    assert positions[0, 0].abs().max() == 0, "the CLS token has none"
    for axis in (0, 1):
        for p in range(16):
            at = (p % 4, p // 4)[axis]
            for i in range(4):
                angle = torch.tensor(at / 10000 ** (i / 4))
                assert positions[0, p + 1, 8 * axis + i].item() == pytest.approx(angle.sin().item(), abs=1e-6)
                assert positions[0, p + 1, 8 * axis + 4 + i].item() == pytest.approx(
                    angle.cos().item(), abs=1e-6
                )
    decoder_positions = mae.parts["decoder"].get_parameter("decoder_pos_embed")
    assert len(decoder_positions[0].unique(dim=0)) == 17, "every patch has its own"
    mae.loss(mae.embed(_images(), KEYS), NO_TARGETS).loss.share.backward()  # type: ignore[no-untyped-call]  # torch
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_loaded_encoder_keeps_its_weights() -> None:
    """Only a fresh one gets the paper's positions and patch embedding."""
    encoder = build_encoder(VIT, 16, seed=0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    build_mae(encoder, DECODER, seed=1, fresh=False)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
