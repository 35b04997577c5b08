"""Tiny random models in diffusers' folder format, written once a session."""

import json
import string
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from protocol.identity import caption_id, view_seed
from protocol.tickets import Ticket

TOKENS = 16
WIDTH = 32
PROJECTION = 24


def _tokenizer() -> CLIPTokenizer:
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=TOKENS)


def _text_config(width: int = WIDTH) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=160,
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        projection_dim=PROJECTION,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(_text_config())


def _unet(channels: int, guidance_width: int | None, **settings: object) -> UNet2DConditionModel:
    shape = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "time_cond_proj_dim": guidance_width,
    }
    return UNet2DConditionModel(**(shape | settings))


def _kl_decoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=16,
    )


def _tiny_decoder() -> AutoencoderTiny:
    decoder = AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    )
    with (
        torch.no_grad()
    ):  # a random decoder is nearly grey: differences would vanish in the rounding to uint8
        decoder.decoder.layers[-1].weight.mul_(20)
    return decoder


def _save(folder: Path, unet: UNet2DConditionModel, vae: torch.nn.Module, scheduler: SchedulerMixin) -> Path:
    StableDiffusionPipeline(
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def guided_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shaped like Stable Diffusion 1.5: two passes for guidance, AutoencoderKL, epsilon, 16x16 pixels."""
    torch.manual_seed(1)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return _save(tmp_path_factory.mktemp("guided"), _unet(4, None), _kl_decoder(), scheduler)


@pytest.fixture(scope="session")
def distilled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shaped like the embedded model: guidance embedding, LCM on v_prediction, AutoencoderTiny, 32x32."""
    torch.manual_seed(2)
    scheduler = LCMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )
    return _save(tmp_path_factory.mktemp("distilled"), _unet(4, 64), _tiny_decoder(), scheduler)


def _save_xl(folder: Path, scheduler: SchedulerMixin) -> Path:
    unet = _unet(
        4,
        None,
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + PROJECTION,
    )
    StableDiffusionXLPipeline(
        text_encoder=_text_encoder(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config()),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=unet,
        vae=_bright(_kl_decoder()),
        scheduler=scheduler,
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def _bright(decoder: AutoencoderKL) -> AutoencoderKL:
    with torch.no_grad():
        decoder.decoder.conv_out.weight.mul_(20)
    return decoder


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory: pytest.TempPathFactory, guided_folder: Path) -> dict[str, Path]:
    """A folder of each family, random, with the schedulers of their publishers. 16x16 pixels."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    trailing = betas | {"timestep_spacing": "trailing"}
    v_prediction = DDIMScheduler(
        **betas, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
    )
    two = {"attention_head_dim": (2, 4), "use_linear_projection": True}
    made = {name: tmp_path_factory.mktemp(name) for name in ("sd2", "sd-turbo", "sdxl", "sdxl-turbo")}
    torch.manual_seed(3)
    _save(made["sd2"], _unet(4, None, **two), _bright(_kl_decoder()), v_prediction)
    _save(made["sd-turbo"], _unet(4, None, **two), _tiny_decoder(), EulerDiscreteScheduler(**trailing))
    _save_xl(made["sdxl"], EulerDiscreteScheduler(**betas))
    _save_xl(made["sdxl-turbo"], EulerAncestralDiscreteScheduler(**trailing))
    return {"sd1": guided_folder, **made}


@pytest.fixture
def make_ticket():
    """Builds tickets as the plan does."""

    def make(group_id: int, caption: str, *, views: int, guidance: tuple[float, ...] = (1.0,)) -> Ticket:
        named = caption_id(caption)
        return Ticket(
            group_id=group_id,
            caption_id=named,
            caption=caption,
            first_view=0,
            seeds=tuple(view_seed(7, named, view) for view in range(views)),
            guidance=guidance * views if len(guidance) == 1 else guidance,
        )

    return make


@pytest.fixture
def edit_json():
    """Changes keys of a JSON file in place."""

    def edit(file: Path, **changes: object) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit
