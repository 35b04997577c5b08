"""Teach a smaller decoder what the embedded model's own makes of its latents.

    noise, name ──pipeline, one step──> latents ┐               ┌─ the model's decoder ──> target ─┐
    drawings ──coupling.py, encoder───> latents ┴─ drawn once ──┴─ tiny decoder ─────────────────── loss

It starts as the model's decoder without some of its blocks. Each start draws its examples anew, so a training
that was interrupted goes on with others. When it ends, it writes the folder that
`generator.decoder = "embedded-tiny"` names, and what it differs by on captions and noise it never saw.

    python examples/emoji/train_tiny_decoder.py --budget 18
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from checkpoints import load_checkpoint, save_checkpoint
from coupling import STYLES, Looks, load_looks
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from export import save_decoder
from models import LATENT_CHANNELS, LATENT_SIZE, resolve_device, shortened
from placements import load_drawings
from torch import Tensor
from train_unet import learning_rate
from train_vae import reconstruction_loss

HERE = Path(__file__).resolve().parent
EMBEDDED = HERE.parents[1] / "generator_service" / "embedded"
DRAWN_SHARE = 0.75
"""Of the examples whose latents the generator drew; those of the others are a drawing's."""
CHUNK = 64
LEVELS = 127.5
"""Levels of 255 in a unit of [-1, 1]."""
README = """# Tiny decoder of the embedded model

An AutoencoderTiny that was taught by `examples/emoji/train_tiny_decoder.py` to decode the embedded model's
latents as its own decoder does, with fewer blocks. `generator.decoder = "embedded-tiny"` uses it. Its encoder
is untrained and means nothing.

Same training data and licences as the model's: see the README.md there.
"""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Latents, and what the model's own decoder makes of them; row i of both belongs together."""

    latents: Tensor
    """(N, 16, 8, 8) float32."""
    targets: Tensor
    """(N, 3, 64, 64) float16 in [-1, 1]."""


@torch.no_grad()
def draw_latents(pipeline: StableDiffusionPipeline, names: list[str], generator: torch.Generator) -> Tensor:
    """(N, 16, 8, 8) latents of one step without guidance, one a name."""
    shape = (len(names), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    noise = torch.randn(shape, generator=generator, device=generator.device)
    with torch.autocast(generator.device.type, torch.bfloat16):
        output = pipeline(
            names, num_inference_steps=1, guidance_scale=1.0, height=64, width=64, latents=noise,
            output_type="latent",
        )  # fmt: skip
    return output.images.float()


@torch.no_grad()
def encode_drawings(vae: AutoencoderTiny, looks: Looks, rows: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 16, 8, 8) latents of the names `rows`, placed at random."""
    shape = (len(rows), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    images = looks.pictures(rows, torch.randn(shape, generator=generator, device=generator.device))
    with torch.autocast(generator.device.type, torch.bfloat16):
        return vae.encoder(images).float()


@torch.no_grad()
def make_examples(
    pipeline: StableDiffusionPipeline,
    looks: Looks,
    count: int,
    drawn_share: float,
    generator: torch.Generator,
) -> Examples:
    """`count` of them, rounded up to whole chunks, of random names; says how far it is."""
    latents: list[Tensor] = []
    targets: list[Tensor] = []
    began, chunks = time.monotonic(), math.ceil(count / CHUNK)
    for number in range(1, chunks + 1):
        rows = torch.randint(len(looks.names), (CHUNK,), generator=generator, device=generator.device)
        drawn = round(drawn_share * CHUNK)
        parts = [draw_latents(pipeline, [looks.names[row] for row in rows[:drawn].tolist()], generator)]
        if drawn < CHUNK:
            parts.append(encode_drawings(pipeline.vae, looks, rows[drawn:], generator))
        latents.append(torch.cat(parts))
        targets.append(pipeline.vae.decode(latents[-1]).sample.clamp(-1, 1).half())
        if number % 10 == 0 or number == chunks:
            left = (time.monotonic() - began) / number * (chunks - number)
            print(f"examples {number * CHUNK} of {chunks * CHUNK}, {left:.0f} s left", flush=True)
    return Examples(latents=torch.cat(latents), targets=torch.cat(targets))


@torch.no_grad()
def difference(decoder: AutoencoderTiny, examples: Examples) -> float:
    """Mean absolute difference from the targets, in levels of 255."""
    total = 0.0
    for latents, targets in zip(examples.latents.split(CHUNK), examples.targets.split(CHUNK), strict=True):
        output = decoder.decode(latents).sample.clamp(-1, 1)
        total += (output - targets.float()).abs().mean().item() * len(latents)
    return LEVELS * total / len(examples.latents)


@torch.no_grad()
def decode_seconds(folders: list[Path], latents: Tensor) -> list[float]:
    """Of a batch in bfloat16 by the decoder of each folder: medians of nine, taken in turns."""
    decoders = [
        AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.bfloat16).to(latents.device)
        for folder in folders
    ]
    seconds: list[list[float]] = [[] for _ in decoders]
    for _ in range(10):
        for decoder, taken in zip(decoders, seconds, strict=True):
            began = time.perf_counter()
            decoder.decode(latents.bfloat16()).sample.sum().item()
            taken.append(time.perf_counter() - began)
    return [sorted(taken[1:])[4] for taken in seconds]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="minutes of training after which it ends anyway"
    )
    parser.add_argument(
        "--examples", type=int, default=4096, help="pairs that each start draws and trains on"
    )
    parser.add_argument("--blocks", type=int, nargs=4, default=(2, 2, 2, 0), help="from 8x8 to 64x64")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=2.0, help="between two checkpoints")
    parser.add_argument("--model", type=Path, default=EMBEDDED / "model")
    parser.add_argument("--work", type=Path, default=HERE / "work" / "tiny_decoder", help="resumed from")
    parser.add_argument("--output", type=Path, default=EMBEDDED / "tiny_decoder")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def train(
    arguments: argparse.Namespace,
    tiny: AutoencoderTiny,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    start: int,
    seconds: float,
) -> None:
    """Steps until they, or the minutes, are over; checkpoints now and then and at the end."""
    random = torch.Generator(examples.latents.device).manual_seed(arguments.seed + start)
    began = kept = time.monotonic()
    smooth, step, progress = math.nan, start, 0.0
    while progress < 1:
        step += 1
        elapsed = seconds + time.monotonic() - began
        progress = max(step / arguments.steps, elapsed / (60 * arguments.budget))
        optimizer.param_groups[0]["lr"] = learning_rate(progress, step, arguments.lr)
        device = random.device
        rows = torch.randint(len(examples.latents), (arguments.batch,), generator=random, device=device)
        latents = examples.latents[rows].contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            output = tiny.decoder(latents).float()
        loss = reconstruction_loss(output, examples.targets[rows].float())
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tiny.decoder.parameters(), 1.0)
        optimizer.step()
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0 or progress >= 1:
            left = elapsed * (1 - progress) / max(progress, 1e-9)
            print(f"step {step} loss {smooth:.4f}, {left:.0f} s left", flush=True)
        if time.monotonic() - kept > 60 * arguments.minutes or progress >= 1:
            kept = time.monotonic()
            counts = {"step": step, "seconds": elapsed, "batch": arguments.batch}
            save_checkpoint(arguments.work, {"tiny_decoder": tiny}, optimizer, counts)


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    device, blocks = resolve_device(arguments.device), tuple(arguments.blocks)
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.model).to(device)
    pipeline.set_progress_bar_config(disable=True)
    tiny = shortened(pipeline.vae, blocks).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(tiny.decoder.parameters(), lr=arguments.lr, weight_decay=1e-4)
    start, seconds = 0, 0.0
    if arguments.work.exists():
        state = load_checkpoint(arguments.work, {"tiny_decoder": tiny}, optimizer)
        start, seconds = state["step"], state["seconds"]
    looks = load_looks(load_drawings(STYLES), device)
    if start < arguments.steps and seconds < 60 * arguments.budget:
        random = torch.Generator(device).manual_seed(arguments.seed + start)
        examples = make_examples(pipeline, looks, arguments.examples, DRAWN_SHARE, random)
        train(arguments, tiny, examples, optimizer, start, seconds)
    size = save_decoder(tiny.eval(), arguments.output, README)
    stored = AutoencoderTiny.from_pretrained(arguments.output).to(device)
    unseen = make_examples(pipeline, looks, 512, 1.0, torch.Generator(device).manual_seed(1_000_003))
    own, now = decode_seconds([arguments.model / "vae", arguments.output], unseen.latents[:48])
    print(
        f"{arguments.output}: {size / 1e6:.2f} MB, {difference(stored, unseen):.2f} levels of 255 off the"
        f" model's decoder on {len(unseen.latents)} unseen latents, {own / now:.2f} times as fast in bfloat16"
        f" ({1000 * now:.0f} ms instead of {1000 * own:.0f} for 48 images)"
    )


if __name__ == "__main__":
    main()
