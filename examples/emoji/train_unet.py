"""Train the teacher: a text encoder and a UNet that predicts v in the latent space, together.

    drawings ──place──> images ──VAE encoder──> latents ──noise at t──> UNet ──> v ──loss──┐
    names ──drop words──> tokens ──text encoder──> states ──────────────┘      optimizer ──┴──> moving average

    python examples/emoji/train_unet.py --steps 8000

Writes work/unet: the trained modules, their averages (which are the teacher), and the optimizer, to resume
from.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from checkpoints import load_checkpoint, save_checkpoint
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from models import (
    GUIDANCE_WIDTH,
    Average,
    build_scheduler,
    build_text_encoder,
    build_unet,
    build_vae,
    load_tokenizer,
    resolve_device,
    signal_and_noise,
    tokenize,
)
from placements import load_drawings, place
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

HERE = Path(__file__).resolve().parent
STYLES = ("noto", "twemoji", "fluent")
CAPTION_DROPOUT = 0.1
WORD_DROPOUT = 0.1
MIN_SNR = 5.0
HIGH_NOISE_SHARE = 0.5
"""Share of timesteps drawn from 800 to 999, where background and rough shape are settled."""
TEXT_RATE = 0.3
"""Learning rate of the text encoder, which is trained already, as a share of the UNet's."""


@dataclass(kw_only=True)
class Data:
    """Draws training batches: latents of placed drawings and the tokens of their captions."""

    pixels: Tensor
    """(N, 4, 64, 64) uint8 drawings, on the device that trains."""
    names: list[str]
    tokenizer: CLIPTokenizer
    vae: AutoencoderTiny
    generator: torch.Generator
    words: random.Random
    caption_dropout: float = CAPTION_DROPOUT

    def caption(self, name: str) -> str:
        """The name with words left out at random, or nothing, for guidance."""
        if self.words.random() < self.caption_dropout:
            return ""
        return " ".join(word for word in name.split() if self.words.random() >= WORD_DROPOUT)

    @torch.no_grad()
    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, 4, 16, 16) float32 latents and (count, 24) token ids."""
        device = self.pixels.device
        rows = torch.randint(len(self.names), (count,), generator=self.generator, device=device)
        images = place(self.pixels[rows], self.generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents = self.vae.encoder(images).float()
        captions = [self.caption(self.names[row]) for row in rows.tolist()]
        return latents, tokenize(self.tokenizer, captions).to(device)


def use_plain_attention(unet: UNet2DConditionModel, device: torch.device) -> None:
    """On CPU attention by plain matrix products: the fused kernel's backward is slow there."""
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())


def build_data(work: Path, seed: int, device: torch.device) -> Data:
    """The training drawings behind the trained VAE and tokenizer of `work`."""
    vae = build_vae().to(device, memory_format=torch.channels_last).requires_grad_(False).eval()
    load_checkpoint(work / "vae", {"vae": vae})
    drawings = load_drawings(STYLES)
    return Data(
        pixels=drawings.images.to(device),
        names=drawings.names,
        tokenizer=load_tokenizer(work / "tokenizer"),
        vae=vae,
        generator=torch.Generator(device).manual_seed(seed),
        words=random.Random(seed),
    )


def loss_weights(signal: Tensor, noise: Tensor) -> Tensor:
    """min(SNR + 1, 5) / (SNR + 1): min-SNR for v-prediction.

    Without the 1 in the numerator the weight at zero SNR is zero, and the first step of sampling is never
    learnt.
    """
    snr = (signal / noise.clamp(min=1e-6)).square()
    return (snr + 1).clamp(max=MIN_SNR) / (snr + 1)


def learning_rate(step: int, progress: float, peak: float, warmup: int = 100) -> float:
    """Linear warm-up over `warmup` steps, then a cosine down to 3% of the peak as progress goes to 1."""
    return peak * min(1.0, step / warmup) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def diffusion_loss(
    modules: dict[str, nn.Module],
    latents: Tensor,
    tokens: Tensor,
    table: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Weighted squared error of v at a random timestep for every latent."""
    device = latents.device
    times = torch.randint(1000, (len(latents),), generator=generator, device=device)
    late = torch.rand(len(latents), generator=generator, device=device) < HIGH_NOISE_SHARE
    times = torch.where(late, 800 + times // 5, times)
    signal, sigma = (values[times].view(-1, 1, 1, 1) for values in table)
    noise = torch.randn(latents.shape, generator=generator, device=device)
    noisy, target = signal * latents + sigma * noise, signal * noise - sigma * latents
    with torch.autocast(device.type, torch.bfloat16):
        states = modules["text_encoder"](tokens).last_hidden_state
        # No guidance yet: its input is zero, and given only so that the student's compiled graph is the same.
        unguided = torch.zeros(len(latents), GUIDANCE_WIDTH, device=device)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        output = modules["unet"](noisy, times, states, timestep_cond=unguided).sample.float()
    errors = (output - target).square().mean(dim=(1, 2, 3))
    return (loss_weights(signal, sigma).flatten() * errors).mean()


def build_modules(
    work: Path, tokenizer: CLIPTokenizer, initial: Path | None, device: torch.device
) -> dict[str, nn.Module]:
    """What is trained: a UNet, from `initial` weights if given, and the text encoder of `work`."""
    modules = {
        "unet": build_unet().to(device, memory_format=torch.channels_last),
        "text_encoder": build_text_encoder(tokenizer).to(device),
    }
    use_plain_attention(modules["unet"], device)
    modules["text_encoder"].set_attn_implementation("eager")
    load_checkpoint(work / "text_encoder", {"text_encoder": modules["text_encoder"]})
    if initial:
        modules["unet"].load_state_dict(load_file(initial), strict=False)
    return modules


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="minutes after which training ends anyway"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=3.0, help="between two checkpoints")
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument(
        "--initial", type=Path, help="UNet weights to start from (parts it lacks stay random)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="torch.compile the UNet")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    folder = arguments.work / "unet"
    tokenizer = load_tokenizer(arguments.work / "tokenizer")
    device = resolve_device(arguments.device)
    modules = build_modules(arguments.work, tokenizer, arguments.initial, device)
    copies = {"unet": build_unet().to(device), "text_encoder": build_text_encoder(tokenizer).to(device)}
    average = Average(modules, copies, decay=0.999)
    parameters = [parameter for module in modules.values() for parameter in module.parameters()]
    groups = [{"params": list(modules[name].parameters())} for name in ("unet", "text_encoder")]
    optimizer = torch.optim.AdamW(groups, lr=arguments.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    saved = modules | {f"{name}_average": copy for name, copy in copies.items()}
    start, seconds = 0, 0.0
    if folder.exists():
        state = load_checkpoint(folder, saved, optimizer)
        start, seconds = state["step"], state["seconds"]
    data = build_data(arguments.work, arguments.seed + start, device)
    table = signal_and_noise(build_scheduler(), device)
    if arguments.compile:
        modules["unet"].compile()
    print(f"{sum(p.numel() for p in modules['unet'].parameters()) / 1e6:.2f}M UNet parameters", flush=True)
    began, smooth, kept, step, progress = time.monotonic(), 0.0, time.monotonic(), start, 0.0
    while progress < 1:
        step += 1
        elapsed = time.monotonic() - began
        # Steps and minutes share one schedule, so that a slow machine still ends with a small learning rate.
        progress = max(step / arguments.steps, (seconds + elapsed) / (60 * arguments.budget))
        for group, factor in zip(optimizer.param_groups, (1.0, TEXT_RATE), strict=True):
            group["lr"] = factor * learning_rate(step, progress, arguments.lr)
        latents, tokens = data.draw(arguments.batch)
        loss = diffusion_loss(modules, latents, tokens, table, data.generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.update(step)
        smooth = loss.item() if step == start + 1 else 0.99 * smooth + 0.01 * loss.item()
        if step % 100 == 0 or step == start + 10:
            left = (seconds + elapsed) * (1 - progress) / progress
            print(
                f"step {step} loss {smooth:.4f}, {elapsed / (step - start):.3f} s a step, {left:.0f} s left",
                flush=True,
            )
        if time.monotonic() - kept > 60 * arguments.minutes or progress >= 1:
            kept = time.monotonic()
            counts = {"step": step, "seconds": seconds + elapsed, "batch": arguments.batch}
            save_checkpoint(folder, saved, optimizer, counts)


if __name__ == "__main__":
    main()
