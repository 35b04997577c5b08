"""Train the UNet to draw, in one step of DDIM, the picture that a noise and a name stand for.

    noise, name ──coupling.py──> picture ──VAE encoder──> latents ──────────────┐
      └───────────────> UNet at timestep 999 ──> -v ────────────────────────────┴─> smooth L1
    name ──text encoder──> states ──┘ └─ inside ──linear readers──> numbers, looks, latents ──> more losses

The schedule has no signal at timestep 999, so that there the latents that v names are -v. The readers serve
training only: without them the UNet finds out one after the other what matters. Placements begin small and
spread over `--spread-steps`, so that it learns first what things look like, and then to move them.

    python examples/emoji/train_unet.py --compile

Writes work/unet: the trained UNet, its average (which is exported), and the optimizer, to resume from.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from checkpoints import load_checkpoint, save_checkpoint
from coupling import STYLES, Looks, channel_means, load_looks
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from models import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    Average,
    build_text_encoder,
    build_unet,
    build_vae,
    load_tokenizer,
    resolve_device,
    tokenize,
)
from placements import load_drawings
from safetensors.torch import load_file
from torch import Tensor, nn
from train_text_encoder import CODE, GRID, patch_codes

HERE = Path(__file__).resolve().parent
FIRST_TIMESTEP = 999
CAPTION_DROPOUT = 0.05
"""Share of empty captions, so that guidance by a second pass works for those who want it."""
READING_WEIGHT = 0.3
BETA = 0.5
"""Errors of latents below it count by their square, those above by their size."""


@dataclass(kw_only=True)
class Data:
    """Draws training batches."""

    looks: Looks
    states: Tensor
    """(names + 1, 77, width) states of the text encoder; the last row is the empty caption's."""
    codes: Tensor
    """(names + 1, 48, 8, 8) codes of patches; the last row is 0."""
    vae: AutoencoderTiny
    generator: torch.Generator
    spread: float = 1.0
    """Of the placements: see `Looks.pictures`."""

    @torch.no_grad()
    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(count, 16, 8, 8) noise, the latents of its picture, (count, 77, width) states, and codes."""
        device, names = self.generator.device, len(self.looks.names)
        rows = torch.randint(names, (count,), generator=self.generator, device=device)
        shape = (count, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        noise = torch.randn(shape, generator=self.generator, device=device)
        images = self.looks.pictures(rows, noise, self.spread).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents = self.vae.encoder(images).float()
        silent = torch.rand(count, generator=self.generator, device=device) < CAPTION_DROPOUT
        captions = torch.where(silent, names, rows)
        return noise, latents, self.states[captions], self.codes[captions]


@torch.no_grad()
def text_states(work: Path, names: list[str], device: torch.device) -> Tensor:
    """(names + 1, 77, width) states of all names, and of the empty caption."""
    tokenizer = load_tokenizer(work / "tokenizer")
    encoder = build_text_encoder(tokenizer).eval()
    load_checkpoint(work / "text_encoder", {"text_encoder": encoder})
    chunks = tokenize(tokenizer, [*names, ""]).split(256)
    return torch.cat([encoder(chunk).last_hidden_state for chunk in chunks]).to(device)


def build_data(work: Path, seed: int, device: torch.device) -> Data:
    """The training drawings behind the trained VAE and text encoder of `work`."""
    vae = build_vae().to(device, memory_format=torch.channels_last).requires_grad_(False).eval()
    load_checkpoint(work / "vae", {"vae": vae})
    drawings = load_drawings(STYLES)
    looks = load_looks(drawings, device)
    _, codes = patch_codes(drawings)
    return Data(
        looks=looks,
        states=text_states(work, looks.names, device),
        codes=F.pad(codes.mT.unflatten(2, (GRID, GRID)), (0, 0, 0, 0, 0, 0, 0, 1)).to(device),
        vae=vae,
        generator=torch.Generator(device).manual_seed(seed),
    )


def learning_rate(progress: float, step: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up over `warmup` steps, then a cosine down to 3% of the peak as progress goes to 1."""
    return peak * min(1.0, step / warmup) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def build_trained_unet(initial: Path | None, device: torch.device) -> UNet2DConditionModel:
    """A UNet, from `initial` weights if given. On CPU attention is plain matrix products, since the fused
    kernel's backward is slow there.
    """
    unet = build_unet()
    if initial:
        shapes = {name: value.shape for name, value in unet.state_dict().items()}
        weights = load_file(initial)
        unet.load_state_dict(
            {name: value for name, value in weights.items() if value.shape == shapes.get(name)}, strict=False
        )
    unet.to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())
    return unet


class Reader(nn.Module):
    """Linear readers of the UNet, so that it need not find out by itself what matters.

    The way down has to tell, everywhere, the numbers of the noise, and what the drawing looks like there; the
    middle the picture's latents.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        width = unet.config.block_out_channels[-1]
        self.down = nn.Conv2d(width, LATENT_CHANNELS + CODE, 1)
        self.middle = nn.Conv2d(width, LATENT_CHANNELS, 1)
        self._outputs: list[Tensor] = []
        unet.down_blocks[-1].register_forward_hook(
            lambda module, inputs, output: self._outputs.append(output[0])
        )
        unet.mid_block.register_forward_hook(lambda module, inputs, output: self._outputs.append(output))

    def loss(self, numbers: Tensor, codes: Tensor, latents: Tensor) -> Tensor:
        """(3,) errors of the evaluation before: of the numbers and the codes squared, of the latents as the
        UNet's own are counted.
        """
        down, middle = (output.float() for output in self._outputs)
        self._outputs.clear()
        told, looks = self.down(down).split([LATENT_CHANNELS, CODE], dim=1)
        return torch.stack(
            [
                F.mse_loss(told, numbers[:, :, None, None].expand_as(told)),
                F.mse_loss(looks, codes),
                F.smooth_l1_loss(self.middle(middle), latents, beta=BETA),
            ]
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="minutes after which training ends anyway"
    )
    parser.add_argument("--first-spread", type=float, default=0.1, help="of placements, in the beginning")
    parser.add_argument("--spread", type=float, default=1.0, help="of placements, in the end")
    parser.add_argument("--spread-steps", type=int, default=3000, help="steps after which it is reached")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=3.0, help="between two checkpoints")
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument(
        "--initial",
        type=Path,
        help="UNet weights to start from (parts it lacks, or has in another shape, stay random)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="torch.compile the UNet")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    device = resolve_device(arguments.device)
    unet, copy = build_trained_unet(arguments.initial, device), build_unet().to(device)
    reader = Reader(unet).to(device)
    average = Average({"unet": unet}, {"unet": copy}, decay=0.999)
    parameters = [*unet.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=arguments.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    saved, folder = {"unet": unet, "unet_average": copy, "reader": reader}, arguments.work / "unet"
    start, seconds = 0, 0.0
    if folder.exists():
        state = load_checkpoint(folder, saved, optimizer)
        start, seconds = state["step"], state["seconds"]
    data = build_data(arguments.work, arguments.seed + start, device)
    times = torch.full((arguments.batch,), FIRST_TIMESTEP, device=device)
    if arguments.compile:
        unet.compile()
    began = kept = time.monotonic()
    smooth, step, progress = math.nan, start, 0.0
    while progress < 1:
        step += 1
        elapsed = time.monotonic() - began
        # Steps and minutes share one schedule, so that a slow machine still ends with a small learning rate.
        progress = max(step / arguments.steps, (seconds + elapsed) / (60 * arguments.budget))
        optimizer.param_groups[0]["lr"] = learning_rate(progress, step, arguments.lr)
        grown = min(1.0, step / max(1, arguments.spread_steps))
        data.spread = arguments.first_spread + (arguments.spread - arguments.first_spread) * grown
        noise, latents, states, codes = data.draw(arguments.batch)
        with torch.autocast(device.type, torch.bfloat16):
            v = unet(noise.contiguous(memory_format=torch.channels_last), times, states).sample.float()
        loss = F.smooth_l1_loss(-v, latents, beta=BETA)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        reading = reader.loss(channel_means(noise), codes, latents)
        optimizer.zero_grad()
        (loss + READING_WEIGHT * reading.sum()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        if step % 100 == 0 or step == start + 1:
            left = (seconds + elapsed) * (1 - progress) / max(progress, 1e-9)
            readings = " ".join(f"{value:.3f}" for value in reading.tolist())
            print(
                f"step {step} loss {smooth:.4f} readers {readings},"
                f" {elapsed / (step - start):.3f} s a step, {left:.0f} s left",
                flush=True,
            )
        if time.monotonic() - kept > 60 * arguments.minutes or progress >= 1:
            kept = time.monotonic()
            counts = {"step": step, "seconds": seconds + elapsed, "batch": arguments.batch}
            save_checkpoint(folder, saved, optimizer, counts)


if __name__ == "__main__":
    main()
