"""Teach the text encoder what things look like before any diffusion: names to codes of their drawings.

    names ──drop words──> tokens ──text encoder──> the last 64 states ──linear──> 8x8 codes ┐
    drawings ──8x8 patches, all styles side by side──> principal components ────────────────┴─ squared error

State 13 + p tells what patch p of the drawing looks like: CLIP's text encoder is causal and padded to 77
tokens, so its last states have seen the whole of all but the longest names. The UNet that is trained after
this needs to learn one map from looks to pictures, in whatever place, not 1,911 symbols.

    python examples/emoji/train_text_encoder.py
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from checkpoints import save_checkpoint
from models import TEXT_WIDTH, build_text_encoder, load_tokenizer, resolve_device, tokenize
from placements import Drawings, load_drawings, premultiply
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
STYLES = ("noto", "twemoji", "fluent")
WORD_DROPOUT = 0.1
CODE = 48
GRID = 8
"""Patches a side: 8x8 pixels each."""
LOOK_CODE = 128
"""Length of the code of a whole drawing, which the judges start from."""


def mean_by_name(drawings: Drawings, values: Tensor) -> tuple[list[str], Tensor]:
    """The sorted names and the mean of their drawings' rows of `values`."""
    names = sorted(set(drawings.names))
    index = {name: row for row, name in enumerate(names)}
    labels = torch.tensor([index[name] for name in drawings.names])
    totals = torch.zeros(len(names), *values.shape[1:]).index_add_(0, labels, values)
    counts = torch.bincount(labels, minlength=len(names))
    return names, totals / counts.view(-1, *[1] * (values.ndim - 1))


def half_whitened(rows: Tensor, count: int) -> Tensor:
    """The first principal components of (N, D) rows, each scaled by the root of its deviation.

    Whitening halfway: colours and outlines lead, but fine parts that tell similar drawings apart still count.
    """
    centred = rows - rows.mean(0)
    values, directions = torch.linalg.eigh(centred.T @ centred / len(rows))
    values, directions = values.flip(0)[:count], directions.flip(1)[:, :count]
    codes = centred @ directions * values.clamp(min=1e-9) ** -0.25
    return codes / codes.std()


def look_codes(drawings: Drawings) -> tuple[list[str], Tensor]:
    """The names and their (names, 128) codes of whole drawings, at 16x16, the mean of all styles."""
    small = F.avg_pool2d(premultiply(drawings.images), 4).flatten(1)
    names, means = mean_by_name(drawings, small)
    return names, half_whitened(means, LOOK_CODE)


def patch_codes(drawings: Drawings) -> tuple[list[str], Tensor]:
    """The names and their (names, 64, 48) codes of patches, row by row; a style that lacks a name counts as
    the mean of those that have it."""
    small = F.avg_pool2d(premultiply(drawings.images), 2)
    names, means = mean_by_name(drawings, small)
    looks = means.unsqueeze(1).repeat(1, len(STYLES), 1, 1, 1)
    index = {name: row for row, name in enumerate(names)}
    for row, (name, style) in enumerate(zip(drawings.names, drawings.styles, strict=True)):
        looks[index[name], STYLES.index(style)] = small[row]
    side = small.shape[-1] // GRID
    patches = looks.unfold(3, side, side).unfold(4, side, side)
    rows = patches.permute(0, 3, 4, 1, 2, 5, 6).reshape(len(names) * GRID * GRID, -1)
    return names, half_whitened(rows, CODE).view(len(names), GRID * GRID, CODE)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    words = random.Random(arguments.seed)
    device = resolve_device(arguments.device)
    names, codes = patch_codes(load_drawings(STYLES))
    codes = codes.to(device)
    tokenizer = load_tokenizer(arguments.work / "tokenizer")
    encoder = build_text_encoder(tokenizer).to(device)
    encoder.set_attn_implementation("eager")
    head = nn.Linear(TEXT_WIDTH, CODE).to(device)
    optimizer = torch.optim.AdamW(
        [*encoder.parameters(), *head.parameters()], lr=arguments.lr, weight_decay=0.01
    )
    began = time.monotonic()
    for step in range(1, arguments.steps + 1):
        shape = min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * step / arguments.steps))
        optimizer.param_groups[0]["lr"] = arguments.lr * shape
        rows = torch.randint(len(names), (arguments.batch,)).tolist()
        captions = [" ".join(w for w in names[row].split() if words.random() >= WORD_DROPOUT) for row in rows]
        with torch.autocast(device.type, torch.bfloat16):
            states = encoder(tokenize(tokenizer, captions).to(device)).last_hidden_state
        loss = F.mse_loss(head(states[:, -GRID * GRID :].float()), codes[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            elapsed = time.monotonic() - began
            left = elapsed / step * (arguments.steps - step)
            print(
                f"step {step} loss {loss.item():.3f} of {codes.square().mean().item():.3f},"
                f" {left:.0f} s left",
                flush=True,
            )
            counts = {"step": step, "seconds": elapsed, "loss": loss.item()}
            save_checkpoint(arguments.work / "text_encoder", {"text_encoder": encoder}, optimizer, counts)


if __name__ == "__main__":
    main()
