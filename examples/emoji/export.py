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
from diffusers import StableDiffusionPipeline
from models import build_scheduler, build_text_encoder, build_unet, build_vae, load_tokenizer

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parents[1] / "generator_service" / "embedded" / "model"
MAX_BYTES = 40_000_000


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
    temporary, old = output.with_name(output.name + ".tmp"), output.with_name(output.name + ".old")
    shutil.rmtree(temporary, ignore_errors=True)
    for module in (pipeline.unet, pipeline.vae):
        for parameter in module.parameters():
            parameter.data = parameter.data.half()
    pipeline.save_pretrained(temporary, safe_serialization=True)
    # AutoencoderTiny adds this entry to its own configuration, and warns when it reads it back.
    config = temporary / "vae" / "config.json"
    entries = {
        key: value for key, value in json.loads(config.read_text()).items() if key != "block_out_channels"
    }
    config.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n")
    for file in temporary.rglob("*.safetensors"):
        file.chmod(0o644)
    card = HERE / "MODEL_CARD.md"
    if card.exists():
        shutil.copyfile(card, temporary / "README.md")
    size = sum(file.stat().st_size for file in temporary.rglob("*.safetensors"))
    if size > MAX_BYTES:
        raise ValueError(f"the weights in {temporary} take {size} bytes, expected at most {MAX_BYTES}")
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
