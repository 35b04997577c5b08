"""Loads the components of a model folder: Stable Diffusion 1.x, 2.x, SDXL, and what was distilled of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from generator_service.lora import fuse_loras
from generator_service.model_folder import ModelFolder
from generator_service.prompts import TextEncoder
from protocol.errors import UserError

_VAES = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
_LOCAL: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}


@dataclass(frozen=True, kw_only=True)
class StableDiffusion:
    """The modules on their device, in evaluation mode, in one dtype but for SDXL decoders that need more."""

    text_encoders: tuple[TextEncoder, ...]
    """One, or SDXL's two."""
    unet: UNet2DConditionModel
    vae: AutoencoderKL | AutoencoderTiny
    scheduler_config: dict[str, Any]
    zero_negative: bool
    """See `ModelFolder.zero_negative`."""

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
    def is_xl(self) -> bool:
        """Whether the UNet reads pooled text and sizes as well."""
        return len(self.text_encoders) > 1

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
    with _told_by(folder.path):
        encoders = [_load_text_encoder(folder.path, "", CLIPTextModel, dtype)]
        if folder.is_xl:
            encoders.append(_load_text_encoder(folder.path, "_2", CLIPTextModelWithProjection, dtype))
        unet = UNet2DConditionModel.from_pretrained(str(folder.path / "unet"), torch_dtype=dtype, **_LOCAL)
    vae = _load_vae(folder, dtype)
    _check_latents(folder, unet, vae)
    if folder.loras:
        fuse_loras(folder, encoders, unet)
    for module in (unet, vae):
        module.to(device=device, memory_format=memory_format_of(device, dtype))
        module.requires_grad_(False).train(False)
    for encoder in encoders:
        torch.nn.Module.to(encoder.model, device=device)
        encoder.model.requires_grad_(False).train(False)
    return StableDiffusion(
        text_encoders=tuple(encoders),
        unet=unet,
        vae=vae,
        scheduler_config=folder.scheduler_config,
        zero_negative=folder.zero_negative,
    )


def memory_format_of(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """Layout of images in memory. Tensor cores read NHWC without reordering it, and so do a CPU's bfloat16
    instructions: it took this engine from 1.04 to 1.41 times the stock pipeline on an EPYC with AVX-512, and
    from 1.05 to 1.50 times on a Xeon with AMX (benchmarks/LOG.md). In float32 both are alike.
    """
    reads_nhwc = device.type == "cuda" or dtype == torch.bfloat16
    return torch.channels_last if reads_nhwc else torch.contiguous_format


@contextmanager
def _told_by(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            "the model cannot be read",
            expected="weights that fit their configs",
            got=str(error),
            where=str(path),
            mend="write the folder again with save_pretrained",
        ) from error


def _load_text_encoder(path: Path, suffix: str, kind: Any, dtype: torch.dtype) -> TextEncoder:
    tokenizer = CLIPTokenizer.from_pretrained(str(path / f"tokenizer{suffix}"), local_files_only=True)
    model = kind.from_pretrained(str(path / f"text_encoder{suffix}"), dtype=dtype, **_LOCAL)
    positions = model.config.max_position_embeddings
    if tokenizer.model_max_length > positions:
        raise UserError(
            "captions would be longer than the text encoder reads",
            expected=f"model_max_length of at most {positions}",
            got=str(tokenizer.model_max_length),
            where=str(path / f"tokenizer{suffix}"),
            mend="set model_max_length in tokenizer_config.json",
        )
    return TextEncoder(tokenizer, model)


def _load_vae(folder: ModelFolder, dtype: torch.dtype) -> AutoencoderKL | AutoencoderTiny:
    decoder = folder.decoder
    path = folder.path / "vae" if decoder is None else decoder.path
    kind = _VAES[folder.vae_class if decoder is None else decoder.vae_class]
    with _told_by(path):
        vae = kind.from_pretrained(str(path), torch_dtype=dtype, **_LOCAL)
    if folder.is_xl and dtype == torch.float16 and vae.config.force_upcast:
        vae.to(torch.float32)  # as SDXL's pipeline does: this decoder overflows in float16
    return vae


def _check_latents(folder: ModelFolder, unet: UNet2DConditionModel, vae: Any) -> None:
    if unet.config.in_channels != vae.config.latent_channels:
        where = folder.path / "vae" if folder.decoder is None else folder.decoder.path
        raise UserError(
            "the decoder is of another model",
            expected=f"{unet.config.in_channels} latent channels",
            got=str(vae.config.latent_channels),
            where=str(where),
            mend="choose another generator.decoder",
        )
