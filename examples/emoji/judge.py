"""Train the judges that score generated drawings: small networks that name a placed drawing.

One judge learns all training styles and scores the generator. Another never sees one style; placed drawings
of that style are the ceiling of what naming an unseen style can reach. Placements are drawn afresh in
training, and scored on with other seeds.

    python examples/emoji/judge.py
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from models import resolve_device
from placements import Drawings, load_drawings, place
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_text_encoder import look_codes

HERE = Path(__file__).resolve().parent
STYLES = ("noto", "twemoji", "fluent")
LEFT_OUT = "twemoji"
LOGIT_SCALE = 16.0


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut; halves the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(hidden)) + self.shortcut(x))


class Judge(nn.Module):
    """(N, 3, 64, 64) in [-1, 1] -> (N, names) scores; a name's score is the cosine to its learnt
    direction.
    """

    def __init__(self, names: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(32, 64), Block(64, 128), Block(128, 256))
        self.project = nn.Linear(256, 128)
        self.directions = nn.Parameter(torch.randn(names, 128))

    def features(self, images: Tensor) -> Tensor:
        """(N, 128) of unit length."""
        hidden = self.blocks(F.relu(self.stem(images))).mean(dim=(2, 3))
        return F.normalize(self.project(hidden).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images) @ F.normalize(self.directions, dim=1).T


def spoil(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random contrast, brightness and noise, so that a judge does not lean on exact colours or clean
    pixels.
    """
    device = generator.device
    gain, shift, level = torch.rand(3, len(images), 1, 1, 1, generator=generator, device=device)
    noise = torch.randn(images.shape, generator=generator, device=device) * 0.15 * level
    return (images * (0.8 + 0.4 * gain) + 0.3 * (shift - 0.5) + noise).clamp(-1, 1)


def train_judge(
    drawings: Drawings, names: list[str], steps: int, batch: int, seed: int, device: torch.device
) -> Judge:
    """A judge that names placed `drawings`; one cycle of the learning rate.

    The names' directions start as codes of their looks (of these drawings alone), so that the first thing
    learnt is to see colours and outlines. The loss is cross-entropy and the cosine to the own direction.
    """
    torch.manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    pixels = drawings.images.to(device)
    index = {name: position for position, name in enumerate(names)}
    labels = torch.tensor([index[name] for name in drawings.names], device=device)
    judge = Judge(len(names)).to(memory_format=torch.channels_last)
    known, codes = look_codes(drawings)
    judge.directions.data[[index[name] for name in known]] = codes
    judge.to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.02)
    began = time.monotonic()
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = (
            2e-3 * min(1, step / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        rows = torch.randint(len(drawings), (batch,), generator=generator, device=device)
        images = spoil(place(pixels[rows], generator), generator)
        with torch.autocast(device.type, torch.bfloat16):
            scores = judge(images.contiguous(memory_format=torch.channels_last))
        own = scores.float().gather(1, labels[rows].view(-1, 1))
        loss = F.cross_entropy(LOGIT_SCALE * scores.float(), labels[rows]) + 4 * (1 - own).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            left = (time.monotonic() - began) / step * (steps - step)
            print(f"judge step {step} loss {loss.item():.3f}, {left:.0f} s left", flush=True)
    return judge.cpu().eval()


def load_judge(path: Path) -> Judge:
    tensors = load_file(path)
    judge = Judge(len(tensors["directions"]))
    judge.load_state_dict(tensors)
    return judge.eval()


@torch.no_grad()
def recall(judge: Judge, images: Tensor, labels: Tensor, depth: int = 10) -> float:
    """Share of (N, 3, 64, 64) images whose true name is among the `depth` names the judge scores highest."""
    scores = torch.cat([judge(chunk) for chunk in images.split(256)])
    return (scores.topk(depth, dim=1).indices == labels.view(-1, 1)).any(1).float().mean().item()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--output", type=Path, default=HERE / "work" / "judges")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    device = resolve_device(arguments.device)
    drawings = load_drawings(STYLES)
    names = sorted(set(drawings.names))
    kept = [row for row, style in enumerate(drawings.styles) if style != LEFT_OUT]
    for label, subset in (("all", drawings), (f"without_{LEFT_OUT}", drawings.select(kept))):
        began = time.monotonic()
        judge = train_judge(subset, names, arguments.steps, arguments.batch, 11, device)
        save_file(
            {key: value.contiguous() for key, value in judge.state_dict().items()},
            arguments.output / f"{label}.safetensors",
        )
        print(f"judge {label}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
