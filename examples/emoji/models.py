"""The parts of the embedded generator: their shapes, their noise schedule, and how their weights are read."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_SIZE = 16
TEXT_WIDTH = 192


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def build_vae() -> AutoencoderTiny:
    """64x64 RGB <-> 16x16x4: a light encoder (used in training only) and a heavier decoder."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(48, 48, 48),
        num_encoder_blocks=(1, 2, 2),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=4,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Three causal transformer layers of CLIP's kind."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """Convolutions at 16x16, attention to the caption at 8x8 and 4x4, and its pooled states."""
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        # Eight channels a group: with two, the norms take away most of what tells an image's mean colour.
        norm_num_groups=8,
        # The pooled caption also joins the timestep embedding: cross-attention alone learnt captions far
        # too slowly.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    nn.init.constant_(unet.add_embedding.norm2.weight, 0.3)
    return unet


def build_scheduler() -> DDIMScheduler:
    """v-prediction on Stable Diffusion's schedule, rescaled so that the last step is noise alone."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        # Latents reach well beyond 1.
        clip_sample=False,
        # Trailing spacing ignores it; Stable Diffusion's pipeline warns at any other value.
        steps_offset=1,
    )


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """(N, 24) int64 token ids, padded and cut as Stable Diffusion's pipeline does it."""
    length = tokenizer.model_max_length
    return tokenizer(
        captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids


class Average:
    """An exponential moving average of modules' parameters, held in copies under the same names."""

    def __init__(self, modules: dict[str, nn.Module], copies: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.sources = [parameter for name in modules for parameter in modules[name].parameters()]
        self.targets = [parameter for name in modules for parameter in copies[name].parameters()]
        for name, module in modules.items():
            copies[name].load_state_dict(module.state_dict())
            copies[name].requires_grad_(False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the copies towards the parameters; early steps count more, as the start is random."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.targets, [source.detach() for source in self.sources], 1 - decay)
