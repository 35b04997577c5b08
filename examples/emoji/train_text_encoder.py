"""Teach the text encoder what things look like before any diffusion: names to codes of their drawings.

    names ──drop words──> tokens ──text encoder──> mean state ──linear──> code ┐
    drawings ──mean of styles, 16x16──> principal components ─────────────────┴─ squared error

The code of a name is the first 128 principal components of its drawings, so that names of similar looks get
similar states, and the UNet that is trained after this needs to learn one map from looks to pictures, not
1,911 symbols.

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
CODE = 128


def look_codes(drawings: Drawings) -> tuple[list[str], Tensor]:
    """The names and their (names, 128) codes; each component is scaled by the root of its deviation."""
    names = sorted(set(drawings.names))
    index = {name: row for row, name in enumerate(names)}
    labels = torch.tensor([index[name] for name in drawings.names])
    small = F.avg_pool2d(premultiply(drawings.images), 4).flatten(1)
    totals = torch.zeros(len(names), small.shape[1]).index_add_(0, labels, small)
    means = totals / torch.bincount(labels, minlength=len(names)).view(-1, 1)
    left, values, _ = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    # Whitening halfway: colours and outlines lead, but fine parts that tell similar drawings apart still
    # count.
    codes = left[:, :CODE] * values[:CODE].sqrt()
    return names, codes / codes.std()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=256)
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
    names, codes = look_codes(load_drawings(STYLES))
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
        loss = F.mse_loss(head(states.float().mean(1)), codes[rows])
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
