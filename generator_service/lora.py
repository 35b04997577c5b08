"""LoRA weights, added to a model's own at load: drawing costs no more than without them."""

from collections.abc import Sequence
from typing import Any

import diffusers
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError

from generator_service.model_folder import Lora, ModelFolder
from generator_service.prompts import TextEncoder
from protocol.errors import UserError


def fuse_loras(folder: ModelFolder, encoders: Sequence[TextEncoder], unet: UNet2DConditionModel) -> None:
    """Changes the modules in place, by diffusers' own reader of the formats that LoRA files have.

    W + scale * (alpha / rank) B A (Hu et al. 2021), one file after another. Raises UserError.
    """
    try:
        import peft  # noqa: F401 - asked for by its name before diffusers does so in many words
    except ImportError as error:
        raise _refusal(
            folder.loras[0], "the package peft", str(error), "pip install 'streamrep[lora]'"
        ) from error
    pipeline = _pipeline(folder, encoders, unet)
    for i, lora in enumerate(folder.loras):
        try:
            pipeline.load_lora_weights(
                str(lora.path.parent),
                weight_name=lora.path.name,
                adapter_name=f"lora{i}",
                use_safetensors=True,
            )
            pipeline.fuse_lora(lora_scale=lora.scale, adapter_names=[f"lora{i}"])
            pipeline.unload_lora_weights()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise _refusal(
                lora, "LoRA weights of this model's family", str(error), "check generator.loras"
            ) from error


def _pipeline(folder: ModelFolder, encoders: Sequence[TextEncoder], unet: UNet2DConditionModel) -> Any:
    """A pipeline around the same modules: the readers are its methods."""
    parts = {"unet": unet, "vae": None, "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False)}
    for suffix, encoder in zip(("", "_2"), encoders, strict=False):
        parts |= {f"tokenizer{suffix}": encoder.tokenizer, f"text_encoder{suffix}": encoder.model}
    if not folder.is_xl:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return getattr(diffusers, folder.pipeline)(**parts)


def _refusal(lora: Lora, expected: str, got: str, mend: str) -> UserError:
    return UserError("the LoRA cannot be used", expected=expected, got=got, where=str(lora.path), mend=mend)
