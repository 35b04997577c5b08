"""Write the trained parts as a diffusers pipeline folder, replaced whole by a rename.

    python examples/emoji/export.py

The folder loads with `StableDiffusionPipeline.from_pretrained(folder)`; the model card beside this file is
copied in.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from pathlib import Path

from checkpoints import load_checkpoint
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from models import build_scheduler, build_text_encoder, build_unet, build_vae, load_tokenizer
from torch import nn

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parents[1] / "generator_service" / "embedded" / "model"
MAX_BYTES = 40_000_000
MAX_DECODER_BYTES = 1_000_000


def build_pipeline(work: Path) -> StableDiffusionPipeline:
    """The pipeline of `work`'s checkpoints in float32, with the UNet's average."""
    tokenizer = load_tokenizer(work / "tokenizer")
    vae, unet, text_encoder = build_vae(), build_unet(), build_text_encoder(tokenizer)
    load_checkpoint(work / "vae", {"vae": vae})
    load_checkpoint(work / "text_encoder", {"text_encoder": text_encoder})
    load_checkpoint(work / "unet", {"unet_average": unet})
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipeline: StableDiffusionPipeline, output: Path) -> int:
    """Write `pipeline` to `output` and return the bytes its weights take.

    The UNet and the VAE are stored in float16. The text encoder stays in float32, as transformers loads a
    model in the type it was stored in, and diffusers loads its own in float32.
    """
    temporary = emptied(output)
    halve(pipeline.unet)
    halve(pipeline.vae)
    pipeline.save_pretrained(temporary, safe_serialization=True)
    strip_config(temporary / "vae" / "config.json")
    card = HERE / "MODEL_CARD.md"
    if card.exists():
        shutil.copyfile(card, temporary / "README.md")
    return put(temporary, output, MAX_BYTES)


def save_decoder(vae: AutoencoderTiny, output: Path, text: str) -> int:
    """Write `vae` in float16 to `output`, with `text` as its README, and return the bytes of its weights."""
    temporary = emptied(output)
    halve(vae)
    vae.save_pretrained(temporary, safe_serialization=True)
    strip_config(temporary / "config.json")
    (temporary / "README.md").write_text(text, encoding="utf-8")
    return put(temporary, output, MAX_DECODER_BYTES)


def emptied(output: Path) -> Path:
    """The folder beside `output` that is written first, gone."""
    temporary = output.with_name(output.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    return temporary


def halve(module: nn.Module) -> None:
    """Its parameters become float16."""
    for parameter in module.parameters():
        parameter.data = parameter.data.half()


def strip_config(config: Path) -> None:
    """Takes out what AutoencoderTiny adds to its own configuration, and warns of when it reads it back."""
    entries = {
        key: value for key, value in json.loads(config.read_text()).items() if key != "block_out_channels"
    }
    config.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")


def put(temporary: Path, output: Path, max_bytes: int) -> int:
    """Renames `temporary` to `output`, and returns the bytes that its weights take."""
    files = list(temporary.rglob("*.safetensors"))
    for file in files:
        file.chmod(0o644)
    size = sum(file.stat().st_size for file in files)
    if size > max_bytes:
        raise ValueError(f"the weights in {temporary} take {size} bytes, expected at most {max_bytes}")
    old = output.with_name(output.name + ".old")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Two renames leave no moment at which a half-written folder carries the name.
    if output.exists():
        os.replace(output, old)
    os.replace(temporary, output)
    shutil.rmtree(old, ignore_errors=True)
    return size


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    size = save(build_pipeline(arguments.work), arguments.output)
    print(f"{arguments.output}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
