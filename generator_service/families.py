"""Loads the components of a model folder. The family here is Stable Diffusion 1.x and 2.x."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from generator_service.model_folder import ModelFolder
from protocol.errors import UserError


@dataclass(frozen=True, kw_only=True)
class StableDiffusion:
    """The modules on their device, in evaluation mode, all in one dtype."""

    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    vae: AutoencoderKL | AutoencoderTiny
    scheduler_config: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Where the modules compute."""
        return torch.device(self.unet.device)

    @property
    def dtype(self) -> torch.dtype:
        """What they compute in."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def embeds_guidance(self) -> bool:
        """Whether the UNet reads the guidance scale itself and needs no second pass (guided distillation)."""
        return self.unet.config.time_cond_proj_dim is not None

    @property
    def latent_factor(self) -> int:
        """Pixels a latent cell is wide."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def load_family(folder: ModelFolder, *, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
    """Reads the weights. Raises UserError when files and configs contradict each other."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    vae_class = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}[folder.vae_class]
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder.path / "tokenizer"), local_files_only=True)
        text_encoder = CLIPTextModel.from_pretrained(
            str(folder.path / "text_encoder"), dtype=dtype, **options
        )
        unet = UNet2DConditionModel.from_pretrained(str(folder.path / "unet"), torch_dtype=dtype, **options)
        vae = vae_class.from_pretrained(str(folder.path / "vae"), torch_dtype=dtype, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            "the model cannot be read",
            expected="weights that fit their configs",
            got=str(error),
            where=str(folder.path),
            mend="write the folder again with save_pretrained",
        ) from error
    _check_tokens(folder, tokenizer, text_encoder)
    for module in (unet, vae):
        module.to(device=device, memory_format=memory_format_of(device))
        module.requires_grad_(False).train(False)
    torch.nn.Module.to(text_encoder, device=device)
    text_encoder.requires_grad_(False).train(False)
    return StableDiffusion(
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        vae=vae,
        scheduler_config=folder.scheduler_config,
    )


def memory_format_of(device: torch.device) -> torch.memory_format:
    """Layout of images in memory. Tensor cores read NHWC without reordering it.

    On a CPU oneDNN reorders by itself: there NHWC took 1.3 times as long in bfloat16 and as long in float32
    (the embedded model, 24 images of 4 steps, one thread of a Xeon with AMX).
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def _check_tokens(folder: ModelFolder, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> None:
    positions = text_encoder.config.max_position_embeddings
    if tokenizer.model_max_length > positions:
        raise UserError(
            "captions would be longer than the text encoder reads",
            expected=f"model_max_length of at most {positions}",
            got=str(tokenizer.model_max_length),
            where=str(folder.path / "tokenizer"),
            mend="set model_max_length in tokenizer_config.json",
        )
