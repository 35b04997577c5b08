"""Train the latent space: an AutoencoderTiny that maps 64x64 RGB to 8x8x16 and back.

    drawings ──coupling.py──> images ──encoder──> latents ──+noise──> decoder ──> loss

Latents are driven to zero mean and unit deviation, so that the diffusion model needs no scaling factor, and
the decoder sees them with noise of up to 0.15 deviations, because generated latents are never exact.

A VAE with 16x16x4 latents is trained first and lends the larger one its layers next to the pixels: what is
folded eight by eight is learnt far slower than what is folded four by four.

    python examples/emoji/train_vae.py --levels 3 --output examples/emoji/work/vae3
    python examples/emoji/train_vae.py --initial examples/emoji/work/vae3
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from checkpoints import load_checkpoint, save_checkpoint
from coupling import STYLES, load_looks
from models import LATENT_CHANNELS, LATENT_SIZE, build_vae, grown, resolve_device
from placements import load_drawings
from torch import Tensor

HERE = Path(__file__).resolve().parent
LATENT_NOISE = 0.15


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of pixels at three resolutions, and of horizontal and vertical differences."""
    loss = F.l1_loss(output, target)
    for axis in (2, 3):
        loss = loss + F.l1_loss(output.diff(dim=axis), target.diff(dim=axis))
    for factor in (2, 4):
        loss = loss + 0.5 * F.l1_loss(F.avg_pool2d(output, factor), F.avg_pool2d(target, factor))
    return loss


def moment_loss(latents: Tensor) -> Tensor:
    """Squared distance of each latent channel's mean and deviation over the batch from 0 and 1."""
    channels = latents.transpose(0, 1).flatten(1)
    return (channels.mean(1).square() + (channels.std(1) - 1).square()).mean()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak of the warm-up and cosine schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--output", type=Path, default=HERE / "work" / "vae", help="resumed from if it exists"
    )
    parser.add_argument("--levels", type=int, default=4, choices=(3, 4), help="3 is 16x16x4, 4 is 8x8x16")
    parser.add_argument("--initial", type=Path, help="folder of a trained VAE of 3 levels to grow from")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    device = resolve_device(arguments.device)
    looks = load_looks(load_drawings(STYLES), device)
    vae = build_vae(arguments.levels)
    if arguments.initial and not arguments.output.exists():
        smaller = build_vae(3)
        load_checkpoint(arguments.initial, {"vae": smaller})
        vae = grown(smaller)
    vae.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=arguments.lr, weight_decay=1e-4)
    start, seconds = 0, 0.0
    if arguments.output.exists():
        state = load_checkpoint(arguments.output, {"vae": vae}, optimizer)
        start, seconds = state["step"], state["seconds"]
    generator = torch.Generator(device).manual_seed(arguments.seed + start)
    began, smooth = time.monotonic() - seconds, 0.0
    for step in range(start + 1, arguments.steps + 1):
        rate = min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * step / arguments.steps))
        optimizer.param_groups[0]["lr"] = arguments.lr * rate
        rows = torch.randint(len(looks.names), (arguments.batch,), generator=generator, device=device)
        shape = (arguments.batch, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        images = looks.pictures(rows, torch.randn(shape, generator=generator, device=device))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents = vae.encoder(images).float()
            level = torch.rand(arguments.batch, 1, 1, 1, generator=generator, device=device) * LATENT_NOISE
            noise = torch.randn(latents.shape, generator=generator, device=device)
            output = vae.decoder(latents + level * noise).float()
        reconstruction, moments = reconstruction_loss(output, images), moment_loss(latents)
        loss = reconstruction + 0.2 * moments
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        smooth = reconstruction.item() if step == start + 1 else 0.98 * smooth + 0.02 * reconstruction.item()
        if step % 100 == 0 or step == arguments.steps:
            elapsed = time.monotonic() - began
            left = elapsed / step * (arguments.steps - step)
            error = F.l1_loss(output, images).item() / 2
            print(
                f"step {step} loss {smooth:.4f} l1 {error:.4f} moments {moments.item():.4f},"
                f" {left:.0f} s left",
                flush=True,
            )
        if step % 500 == 0 or step == arguments.steps:
            counts = {"step": step, "seconds": time.monotonic() - began, "batch": arguments.batch}
            save_checkpoint(arguments.output, {"vae": vae}, optimizer, counts)


if __name__ == "__main__":
    main()
