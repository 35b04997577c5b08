"""The masked autoencoder (He et al. 2021, arXiv:2111.06377) through transformers' ViTMAEForPreTraining.

    images ─ patches, most hidden by noise of their keys ─→ the run's ViT ─→ decoder ─→ error of hidden ones

The ViT that is trained is the run's own encoder: the pretraining model is built around its layers, so what is
evaluated and saved is a plain ViT, and a checkpoint holds each weight once.

Shapes: N images, P patches, D pixel values of a patch.
"""

import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from protocol.errors import UserError
from trainer.augment_parameters import Key, uniforms
from trainer.encoder import Encoder
from trainer.losses.reconstruction import masked_error
from trainer.losses.sums import LossSums
from trainer.objectives.objective import Outcome, Targets
from trainer.objectives.over_ranks import mean_over_ranks

_SHARED_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "image_size",
    "patch_size",
    "num_channels",
    "qkv_bias",
)
_OWN_FIELDS = (
    "decoder_num_attention_heads",
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_intermediate_size",
    "mask_ratio",
    "norm_pix_loss",
)
_MASK_SALT = 1 << 62
"""Added to a key's last part: without it the hidden patches would follow from the augmentation's numbers."""


class MaskedAutoencoder:
    """What `embed` gives for an image is its reconstruction error, so the loss is a mean of rows; and behind
    it the encoder's CLS token, which is only looked at."""

    def __init__(self, model: ViTMAEForPreTraining) -> None:
        self._model = model
        self._patches = int(model.vit.embeddings.patch_embeddings.num_patches)
        self.parts = nn.ModuleDict({"decoder": model.decoder})
        self.exported = nn.ModuleDict()

    def embed(self, images_NCHW: Tensor, keys: Sequence[Key]) -> Tensor:
        """[N, 1 + F] reconstruction errors and features; which patches are hidden depends on each image's key
        alone.

        Features are of the patches that are not hidden: those of whole images would cost a second pass.
        """
        salted = [(seed, group, view, use + _MASK_SALT) for seed, group, view, use in keys]
        noise_NP = torch.from_numpy(uniforms(salted, self._patches)).to(images_NCHW.device)
        seen = self._model.vit(pixel_values=images_NCHW, noise=noise_NP)
        error_N = masked_error(
            self._model.decoder(seen.last_hidden_state, seen.ids_restore).logits,
            self._model.patchify(images_NCHW),
            seen.mask,
            normalise=self._model.config.norm_pix_loss,
        )
        features_NF = seen.last_hidden_state[:, 0].detach().to(error_N.dtype)
        return torch.cat([error_N[:, None], features_NF], dim=1)

    def loss(self, embedded_NF: Tensor, targets: Targets) -> Outcome:
        """The mean over the images of all ranks; its floor is 0."""
        error_N, features_NF = embedded_NF[:, 0], embedded_NF[:, 1:]
        count = error_N.new_tensor(len(error_N))
        sums = LossSums(error_N.sum(), torch.zeros_like(count), count)
        return Outcome(mean_over_ranks(sums), features_NF.detach(), None)

    def after_update(self) -> None:
        """Nothing is bounded."""

    def save(self, folder: Path, exported: nn.ModuleDict) -> None:
        """The encoder is all."""


def build_mae(encoder: Encoder, fields: dict[str, Any], seed: int, *, fresh: bool) -> MaskedAutoencoder:
    """Puts a decoder of `model.mae`'s fields behind `encoder`, a ViT. Raises UserError.

    The positions of a `fresh` encoder become the paper's sine and cosine, which are not trained, and its
    patch embedding starts as the paper's. Weights depend on `seed` alone.
    """
    backbone = encoder.backbone
    if not isinstance(backbone, ViTModel):
        raise UserError(
            "mae can't train this encoder",
            expected="transformers' ViTModel",
            got=type(backbone).__name__,
            where="model.encoder",
            mend='use model_type = "vit", or another train.objective',
        )
    for key in fields:
        if key not in _OWN_FIELDS:
            nearest = get_close_matches(key, _OWN_FIELDS, n=1)
            raise UserError(
                "the masked autoencoder has no such field",
                expected=f"`{nearest[0]}`" if nearest else f"one of {', '.join(_OWN_FIELDS)}",
                got=f"`{key}`",
                where="model.mae",
                mend="correct the key or leave it out; the ViT's own fields belong in model.encoder",
            )
    shared = {name: getattr(backbone.config, name) for name in _SHARED_FIELDS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            config = ViTMAEConfig(**shared | fields)
            model = ViTMAEForPreTraining(config)
            patches = model.vit.embeddings.patch_embeddings.num_patches
            # transformers 5.23 leaves all positions of a new model at zero: the decoder could not tell
            # hidden patches apart.
            with torch.no_grad():
                positions = sine_cosine_positions(patches, config.decoder_hidden_size)
                model.decoder.decoder_pos_embed.copy_(positions)
                nn.init.normal_(model.decoder.mask_token, std=config.initializer_range)
            if fresh:
                _start_as_the_paper(backbone)
            if not 0 < int(patches * (1 - config.mask_ratio)) < patches:
                raise ValueError(f"mask_ratio {config.mask_ratio} hides none or all of {patches} patches")
        except Exception as error:  # of many types, each meaning that these fields don't fit
            raise UserError(
                "transformers cannot build this masked autoencoder",
                expected="fields of ViTMAEConfig that fit the encoder",
                got=repr(fields),
                where="model.mae",
                mend=f"it says: {error}"[:400],
            ) from error
    _share(backbone, model)
    return MaskedAutoencoder(model)


@torch.no_grad()
def _start_as_the_paper(backbone: ViTModel) -> None:
    embeddings = backbone.embeddings
    positions = sine_cosine_positions(embeddings.patch_embeddings.num_patches, backbone.config.hidden_size)
    embeddings.position_embeddings.copy_(positions)
    embeddings.position_embeddings.requires_grad_(False)
    nn.init.xavier_uniform_(embeddings.patch_embeddings.projection.weight.flatten(1))


def sine_cosine_positions(patches: int, dim: int) -> Tensor:
    """[1, 1 + patches, dim] float32: zeros for the CLS token, then a row for each patch of a square grid.

    A quarter of `dim` each: sine and cosine of x / 10000^(i / quarter), then of y.
    """
    side = math.isqrt(patches)
    if side * side != patches or dim % 4 != 0:
        raise ValueError(f"{patches} patches are no square, or width {dim} is no multiple of 4")
    at_P = torch.arange(patches, dtype=torch.float64)
    rate_Q = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    x_PQ, y_PQ = torch.outer(at_P % side, rate_Q), torch.outer(at_P // side, rate_Q)
    positions_PD = torch.cat([x_PQ.sin(), x_PQ.cos(), y_PQ.sin(), y_PQ.cos()], dim=1)
    return torch.cat([torch.zeros(1, dim), positions_PD.float()])[None]


def _share(backbone: ViTModel, model: ViTMAEForPreTraining) -> None:
    """The pretraining model's own encoder gives way to the run's, which has the same layers."""
    mine, theirs = backbone.embeddings, model.vit.embeddings
    theirs.cls_token = mine.cls_token
    theirs.position_embeddings = mine.position_embeddings
    theirs.patch_embeddings.projection = mine.patch_embeddings.projection
    model.vit.layers = backbone.layers
    model.vit.layernorm = backbone.layernorm
