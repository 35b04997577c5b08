"""Folders with the architecture of published models and random weights: their speed without their weights.

The configs are those that the models' publishers ship; tests and benchmarks alone use such folders.
"""

from pathlib import Path
from typing import Any

_SD = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
_SD21 = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
_SDXL = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_OPEN_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
_OPEN_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_TINY = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
}
_CLIP_TINY = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
ARCHITECTURES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "sd15": (_SD, [_CLIP_L]),
    "sd21": (_SD21, [_OPEN_CLIP_H]),
    "sdxl": (_SDXL, [_CLIP_L, _OPEN_CLIP_G]),
    "tiny": (_TINY, [_CLIP_TINY]),
}
"""UNet and text encoders of each. `tiny` is for trying the benchmark itself."""


def make_architecture(name: str, folder: Path) -> Path:
    """Writes the folder, with a tiny (TAESD) decoder and DDIM, and returns it."""
    import torch
    from diffusers import (
        AutoencoderTiny,
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    unet, texts = ARCHITECTURES[name]
    torch.manual_seed(0)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(**unet),
        "vae": AutoencoderTiny(),
        "scheduler": scheduler,
    }
    for suffix, kind, text in zip(
        ("", "_2"), (CLIPTextModel, CLIPTextModelWithProjection), texts, strict=False
    ):
        tokenizer = _tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=1, pad_token_id=1, **text
        )
        parts |= {f"text_encoder{suffix}": kind(config), f"tokenizer{suffix}": tokenizer}
    if len(texts) > 1:
        pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = StableDiffusionPipeline(**parts)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _tokenizer() -> Any:
    """Of letters: how a caption is split does not change how long 77 tokens take."""
    import string

    from transformers import CLIPTokenizer

    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
