"""Distil the teacher into a student that needs four evaluations and no second pass for guidance.

Latent consistency distillation. With z at timestep t, the teacher's guided ODE step leads to z' at t' < t,
and the student learns to name the same clean latents from both:

    z_t ──student(t, w)─────────────────────────────> x0 ──┐
     └──teacher, guided by w: one DDIM step──> z_t'        ├─ pseudo-Huber loss
                                                └─target student(t', w)──> x0 ──┘

w = guidance_scale - 1 enters the UNet exactly as diffusers' pipelines embed it, drawn from [0, 4] in
training.

    python examples/emoji/distill_lcm.py --steps 3000
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from checkpoints import load_checkpoint, save_checkpoint
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from models import (
    GUIDANCE_WIDTH,
    Average,
    build_scheduler,
    build_text_encoder,
    build_unet,
    load_tokenizer,
    resolve_device,
    signal_and_noise,
    tokenize,
)
from torch import Tensor
from train_unet import build_data, learning_rate, use_plain_attention
from transformers import CLIPTextModel

HERE = Path(__file__).resolve().parent
MAX_W = 4.0
"""Largest w = guidance_scale - 1 the student is taught."""
HUBER = 0.05


def guidance_embedding(w: Tensor) -> Tensor:
    """(N,) w -> (N, GUIDANCE_WIDTH), by the pipeline's own method."""
    # On the CPU, where that method makes its own tensors.
    embedding = StableDiffusionPipeline.get_guidance_scale_embedding(
        None, w.cpu(), embedding_dim=GUIDANCE_WIDTH
    )
    return embedding.to(w.device)


@dataclass(frozen=True, kw_only=True)
class Solver:
    """The equations of v-prediction, of the consistency function and of one DDIM step, by timestep."""

    signal: Tensor
    """(1000,) factor of the clean latents; zero at timestep 999."""
    noise: Tensor
    """(1000,) factor of the noise; one at timestep 999."""
    scaling: float = 10.0
    """LCMScheduler's timestep_scaling."""

    def at(self, times: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal[times].view(-1, 1, 1, 1), self.noise[times].view(-1, 1, 1, 1)

    def clean(self, latents: Tensor, v: Tensor, times: Tensor) -> Tensor:
        signal, noise = self.at(times)
        return signal * latents - noise * v

    def consistent(self, latents: Tensor, v: Tensor, times: Tensor) -> Tensor:
        """The consistency function: the prediction of clean latents, bent to the identity at t = 0."""
        scaled = (times.float() * self.scaling).view(-1, 1, 1, 1)
        skip, out = 0.25 / (scaled.square() + 0.25), scaled / (scaled.square() + 0.25).sqrt()
        return skip * latents + out * self.clean(latents, v, times)

    def step(self, latents: Tensor, v: Tensor, times: Tensor, earlier: Tensor) -> Tensor:
        """DDIM from `times` to `earlier`; an earlier time below 0 means clean latents.

        Nothing is divided by the signal, so the step from timestep 999, where it is zero, needs no special
        case.
        """
        signal, noise = self.at(times)
        direction = noise * latents + signal * v
        signal, noise = self.at(earlier.clamp(min=0))
        ended = (earlier < 0).view(-1, 1, 1, 1)
        return (
            torch.where(ended, 1.0, signal) * self.clean(latents, v, times)
            + torch.where(ended, 0.0, noise) * direction
        )


def check_against_scheduler(solver: Solver, scheduler: LCMScheduler) -> None:
    """Compare our consistency function with what LCMScheduler.step returns as denoised, at the four
    timesteps.
    """
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(4)
    for time_ in scheduler.timesteps:
        latents, v = torch.randn(2, 3, 4, 16, 16, generator=generator)
        theirs = scheduler.step(v, time_, latents, generator=generator).denoised
        device = solver.signal.device
        ours = solver.consistent(latents.to(device), v.to(device), time_.expand(3).to(device)).cpu()
        if not torch.allclose(theirs, ours, atol=1e-4):
            raise ArithmeticError(
                f"differs from LCMScheduler by {(theirs - ours).abs().max()} at timestep {time_}"
            )


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The three networks of latent consistency distillation and the loss that ties them."""

    teacher: UNet2DConditionModel
    student: UNet2DConditionModel
    target: UNet2DConditionModel
    text_encoder: CLIPTextModel
    empty: Tensor
    """(1, 24) tokens of the empty caption."""
    solver: Solver
    stride: int
    """Timesteps that one step of the teacher covers."""

    @torch.no_grad()
    def aims(self, noisy: Tensor, times: Tensor, w: Tensor, states: Tensor) -> Tensor:
        """What the target student names as clean latents one guided teacher step below (noisy, times)."""
        count = len(noisy)
        nothing = self.text_encoder(self.empty).last_hidden_state.expand(count, -1, -1)
        both = self.teacher(
            noisy.repeat(2, 1, 1, 1), times.repeat(2), torch.cat([states, nothing])
        ).sample.float()
        with_caption, without = both.chunk(2)
        v = with_caption + w.view(-1, 1, 1, 1) * (with_caption - without)
        earlier = times - self.stride
        below = self.solver.step(noisy, v, times, earlier)
        output = self.target(
            below, earlier.clamp(min=0), states, timestep_cond=guidance_embedding(w)
        ).sample.float()
        ended = (earlier < 0).view(-1, 1, 1, 1)
        return torch.where(ended, below, self.solver.consistent(below, output, earlier.clamp(min=0)))

    def loss(self, latents: Tensor, tokens: Tensor, generator: torch.Generator) -> Tensor:
        """Mean pseudo-Huber distance over a batch of clean latents, timesteps drawn from the
        scheduler's fifty.
        """
        count, device = len(latents), latents.device
        times = 20 * torch.randint(1, 51, (count,), generator=generator, device=device) - 1
        w = MAX_W * torch.rand(count, generator=generator, device=device)
        signal, sigma = self.solver.at(times)
        noisy = signal * latents + sigma * torch.randn(latents.shape, generator=generator, device=device)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                states = self.text_encoder(tokens).last_hidden_state
            aims = self.aims(noisy, times, w, states)
            # A leaf that takes gradients nobody reads: the compiled graph is then the teacher's, found in
            # the cache.
            states = states.detach().requires_grad_()
            output = self.student(noisy, times, states, timestep_cond=guidance_embedding(w)).sample.float()
        errors = (self.solver.consistent(noisy, output, times) - aims).square()
        return ((errors + HUBER**2).sqrt() - HUBER).mean()


def build_distillation(work: Path, stride: int, device: torch.device) -> Distillation:
    """Teacher, student and target, all equal to the teacher's average at first; text encoder frozen."""
    tokenizer = load_tokenizer(work / "tokenizer")
    text_encoder = build_text_encoder(tokenizer).to(device).requires_grad_(False).eval()
    unets = [build_unet().to(device, memory_format=torch.channels_last) for _ in range(3)]
    for unet in unets:
        load_checkpoint(work / "unet", {"unet_average": unet, "text_encoder_average": text_encoder})
        use_plain_attention(unet, device)
    unets[0].requires_grad_(False)
    unets[2].requires_grad_(False)
    signal, noise = signal_and_noise(build_scheduler(), device)
    return Distillation(
        teacher=unets[0],
        student=unets[1],
        target=unets[2],
        text_encoder=text_encoder,
        empty=tokenize(tokenizer, [""]).to(device),
        solver=Solver(signal=signal, noise=noise),
        stride=stride,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument(
        "--budget", type=float, default=math.inf, help="minutes after which training ends anyway"
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument(
        "--stride", type=int, default=120, help="timesteps a teacher step covers (a multiple of 20)"
    )
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=3.0, help="between two checkpoints")
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="torch.compile the student")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    folder = arguments.work / "lcm"
    device = resolve_device(arguments.device)
    nets = build_distillation(arguments.work, arguments.stride, device)
    check_against_scheduler(nets.solver, build_scheduler())
    result = build_unet().to(device)
    follow = Average({"unet": nets.student}, {"unet": nets.target}, decay=0.95)
    average = Average({"unet": nets.student}, {"unet": result}, decay=0.995)
    optimizer = torch.optim.AdamW(
        nets.student.parameters(), lr=arguments.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    saved = {"student": nets.student, "target": nets.target, "unet_average": result}
    start, seconds = 0, 0.0
    if folder.exists():
        state = load_checkpoint(folder, saved, optimizer)
        start, seconds = state["step"], state["seconds"]
    data = build_data(arguments.work, arguments.seed + start, device)
    if arguments.compile:
        nets.student.compile()
    data.caption_dropout = 0.02
    began, smooth, kept, step, progress = time.monotonic(), 0.0, time.monotonic(), start, 0.0
    while progress < 1:
        step += 1
        elapsed = time.monotonic() - began
        progress = max(step / arguments.steps, (seconds + elapsed) / (60 * arguments.budget))
        optimizer.param_groups[0]["lr"] = learning_rate(step, progress, arguments.lr, warmup=50)
        loss = nets.loss(*data.draw(arguments.batch), data.generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(nets.student.parameters(), 1.0)
        optimizer.step()
        follow.update(step)
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
            save_checkpoint(
                folder,
                saved,
                optimizer,
                {"step": step, "seconds": seconds + elapsed, "batch": arguments.batch},
            )


if __name__ == "__main__":
    main()
