"""Rebuild work/ from the exported model, to train it further where the checkpoints are gone.

    python examples/emoji/restore.py
    python examples/emoji/train_unet.py --initial examples/emoji/work/initial_unet.safetensors

Tokenizer, VAE and text encoder come back as they were; the UNet is the average of those on the way. Optimizer
states start anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "generator_service" / "embedded" / "model"


def restore_part(weights: Path, folder: Path, name: str) -> None:
    """One module's weights as a checkpoint of it, in float32."""
    folder.mkdir(parents=True)
    tensors = {key: value.float() for key, value in load_file(weights).items()}
    save_file(tensors, folder / f"modules.{name}.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": 0, "seconds": 0.0}) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    model, work = arguments.model, arguments.work
    taken = [str(path) for path in (work / "tokenizer", work / "vae", work / "text_encoder") if path.exists()]
    if taken:
        raise SystemExit(
            f"{', '.join(taken)}: expected nothing there, since it would be replaced; move it away"
        )
    work.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model / "tokenizer", work / "tokenizer")
    restore_part(model / "vae" / "diffusion_pytorch_model.safetensors", work / "vae", "vae")
    restore_part(model / "text_encoder" / "model.safetensors", work / "text_encoder", "text_encoder")
    unet = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({key: value.float() for key, value in unet.items()}, work / "initial_unet.safetensors")
    print(f"{work}: tokenizer, vae, text_encoder, initial_unet.safetensors")


if __name__ == "__main__":
    main()
