"""The parts of the embedded generator: their shapes, their noise schedule, and how their weights are read."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LATENT_SIZE, LATENT_CHANNELS = 8, 16
TEXT_WIDTH = 192


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def build_vae(levels: int = 4) -> AutoencoderTiny:
    """64x64 RGB <-> 8x8x16: a light encoder (used in training only) and a heavier decoder.

    `levels` = 3 makes the one that training begins with, 64x64 RGB <-> 16x16x4: see `grown`.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(32,) * levels,
        decoder_block_out_channels=(48,) * levels,
        num_encoder_blocks=(1, 2, 2, 2)[:levels],
        num_decoder_blocks=(3, 3, 2, 1)[-levels:],
        latent_channels=4 if levels == 3 else LATENT_CHANNELS,
        scaling_factor=1.0,
        force_upcast=False,
    )


def grown(smaller: AutoencoderTiny) -> AutoencoderTiny:
    """A VAE of 4 levels that has all it can use of a trained one of 3: the layers next to the pixels."""
    vae = build_vae()
    for part, added in (("encoder", 0), ("decoder", 5)):
        target = getattr(vae, part).layers.state_dict()
        for name, value in getattr(smaller, part).layers.state_dict().items():
            layer, rest = name.split(".", 1)
            # Layer 0 of a decoder takes the latents, which are others now.
            moved = f"{int(layer) + (added if int(layer) else 0)}.{rest}"
            if moved in target and target[moved].shape == value.shape:
                target[moved].copy_(value)
    return vae


def build_tiny_decoder(blocks: tuple[int, ...] = (2, 2, 2, 0)) -> AutoencoderTiny:
    """8x8x16 -> 64x64 RGB with fewer `blocks`, from 8x8 to 64x64, than `build_vae` has.

    The class wants an encoder: the least it allows, which nothing trains.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(1,) * 4,
        decoder_block_out_channels=(48,) * 4,
        num_encoder_blocks=(0,) * 4,
        num_decoder_blocks=blocks,
        latent_channels=LATENT_CHANNELS,
        scaling_factor=1.0,
        force_upcast=False,
    )


def shortened(vae: AutoencoderTiny, blocks: tuple[int, ...] = (2, 2, 2, 0)) -> AutoencoderTiny:
    """A tiny decoder that has, at every resolution, the first of `vae`'s blocks, and all layers between."""
    tiny = build_tiny_decoder(blocks)
    source, target = iter(vae.decoder.layers), iter(tiny.decoder.layers)
    # The first convolution and its activation.
    pairs = [(next(source), next(target)) for _ in range(2)]
    for level, (own, kept) in enumerate(zip(vae.config.num_decoder_blocks, blocks, strict=True)):
        taken = [next(source) for _ in range(own)]
        pairs += [(taken[i], next(target)) for i in range(kept)]
        # The upsampling, of all but the last, and the convolution after it.
        pairs += [(next(source), next(target)) for _ in range(1 if level == len(blocks) - 1 else 2)]
    for old, new in pairs:
        new.load_state_dict(old.state_dict())
    return tiny


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
    """One resolution, 8x8, that of the caption's states, with attention to image and caption in every block.

    Nothing is folded into channels on the way down that would have to be unfolded on the way up, which
    nearest-neighbour upsampling can hardly learn.
    """
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(192,),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        # Few groups: with many, the norms take away most of what tells an image's mean colour.
        norm_num_groups=4,
        # The pooled caption also joins the timestep embedding.
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
    """(N, 77) int64 token ids, padded and cut as Stable Diffusion's pipeline does it."""
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
