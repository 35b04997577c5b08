"""The image encoder: any transformers vision model, reduced to one feature vector an image.

Shapes: N images of C = 3 channels, H = W pixels; F encoder features.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from protocol.errors import UserError

_WHERE = "model.encoder"

# An encoder is saved and loaded in a moment; a bar for that would break the trainer's progress line.
logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it unannotated


class Encoder(nn.Module):
    """A transformers vision model whose features are its CLS token, or its pooled map where it has none."""

    dim: int
    """F, the length of a feature vector."""

    def __init__(self, backbone: PreTrainedModel, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.has_cls_token = any(
            name.endswith(("cls_token", "class_embedding")) for name, _ in backbone.named_parameters()
        )
        pooler = getattr(backbone, "pooler", None)
        if self.has_cls_token and isinstance(pooler, nn.Module):
            # The CLS token is read before this layer, which would wait for a gradient that never comes.
            pooler.requires_grad_(False)
        self.eval()
        with torch.no_grad():
            self.dim = self(torch.zeros(1, 3, image_size, image_size)).shape[1]
        self.train()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Normalised float images [N, 3, H, W] -> features [N, F]."""
        if not self.has_cls_token:
            # Convolutions follow their input's layout, and this one is faster: in bfloat16 on a CPU by half.
            # The weights stay contiguous, as safetensors wants them.
            images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
        output = self.backbone(pixel_values=images_NCHW)
        features: Tensor = (
            output.last_hidden_state[:, 0] if self.has_cls_token else output.pooler_output.flatten(1)
        )
        return features

    def checkpoint_layers(self) -> None:
        """Trades time for memory: activations within layers are computed again for the gradient. Raises
        UserError where transformers' model can't."""
        if not self.backbone.supports_gradient_checkpointing:
            raise UserError(
                "the encoder can't be checkpointed",
                expected="a model that transformers can checkpoint, such as vit",
                got=str(self.backbone.config.model_type),
                where="train.checkpointing",
                mend="set it to false, or choose another model.encoder",
            )
        enable = self.backbone.activation_checkpointing_enable
        enable({"use_reentrant": False})

    def save(self, folder: Path) -> None:
        """Write `config.json` and safetensors that `AutoModel.from_pretrained(folder)` loads."""
        self.backbone.save_pretrained(folder)


def build_encoder(encoder: dict[str, Any], image_size: int, seed: int) -> Encoder:
    """The encoder of `model.encoder`: `{"folder": path}`, or `model_type` and fields of its config.

    A model with an `image_size` gets `image_size` pixels. Fresh weights depend on `seed` alone, and the
    global random state is left as it was. Raises UserError.
    """
    if "folder" in encoder:
        return _wrap(_load_backbone(encoder), image_size)
    config = _build_config(encoder, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            backbone = AutoModel.from_config(config)  # type: ignore[no-untyped-call]  # library
        except Exception as error:  # of many types, each meaning that these fields don't fit
            raise _refusal(encoder, error) from error
    return _wrap(backbone, image_size)


def _load_backbone(encoder: dict[str, Any]) -> PreTrainedModel:
    if len(encoder) > 1 or not (Path(encoder["folder"]) / "config.json").is_file():
        raise UserError(
            "no saved encoder",
            expected="`folder` alone, holding config.json and model.safetensors",
            got=repr(encoder),
            where=_WHERE,
            mend="name the `encoder` folder of a finished run",
        )
    try:
        backbone: PreTrainedModel = AutoModel.from_pretrained(
            encoder["folder"], local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # a broken file, an unknown architecture: all the same to the user
        raise _refusal(encoder, error) from error
    return backbone


def _build_config(encoder: dict[str, Any], image_size: int) -> PreTrainedConfig:
    fields = {key: value for key, value in encoder.items() if key != "model_type"}
    try:
        known = AutoConfig.for_model(encoder.get("model_type", "")).to_dict()
    except Exception as error:  # an unknown model_type
        raise UserError(
            "unknown model_type",
            expected="one of transformers' vision models, such as resnet, vit or convnextv2",
            got=repr(encoder.get("model_type")),
            where=_WHERE,
            mend="see the model_type names in transformers' documentation",
        ) from error
    for key in fields:
        if key not in known:
            nearest = get_close_matches(key, known, n=1)
            raise UserError(
                f"{encoder['model_type']} has no such field",
                expected=f"`{nearest[0]}`" if nearest else "a field of its transformers config",
                got=f"`{key}`",
                where=_WHERE,
                mend="correct the key or leave it out",
            )
    if "image_size" in known and fields.setdefault("image_size", image_size) != image_size:
        raise UserError(
            "the encoder's input and the crops differ",
            expected=f"image_size = augment.crop_size = {image_size}",
            got=f"image_size = {fields['image_size']}",
            where=_WHERE,
            mend="leave image_size out",
        )
    try:
        return AutoConfig.for_model(encoder["model_type"], **fields)
    except Exception as error:  # of many types, each meaning that these fields don't fit
        raise _refusal(encoder, error) from error


def _wrap(backbone: PreTrainedModel, image_size: int) -> Encoder:
    try:
        return Encoder(backbone, image_size)
    except Exception as error:  # it takes other input than images, or gives no feature vector
        raise _refusal(backbone.config.to_diff_dict(), error) from error


def _refusal(encoder: dict[str, Any], error: Exception) -> UserError:
    return UserError(
        "transformers cannot build this encoder",
        expected="a vision model's config",
        got=repr(encoder.get("model_type", encoder.get("folder"))),
        where=_WHERE,
        mend=f"it says: {error}"[:400],
    )
