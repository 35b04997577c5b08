"""Drawings placed at random: what every image in this example is trained and judged on.

A drawing is scaled by 0.6 to 1, turned by up to 15 degrees, shifted, and laid over white, or over two random
colours that meet in a soft edge. The caption tells none of it, so a generator has to draw it from its noise.
Nothing is mirrored: letters, flags and arrows would change their meaning.
"""

from __future__ import annotations

import csv
import io
import math
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

EMBEDDED = Path(__file__).resolve().parents[2] / "trainer" / "embedded"
SIZE = 64
MIN_SCALE = 0.6
MAX_DEGREES = 15.0
WHITE_SHARE = 0.1
MAX_OFFSET = 0.6
"""Of the edge between two colours from the middle; 1 is half the width of an image."""
EDGE_WIDTH = 0.25
NUMBERS = 13
"""Numbers in [0, 1] that decide a placement: four of the drawing's, nine of the background's."""


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """Drawings in memory, row i of every field belonging together."""

    images: Tensor
    """(N, 4, 64, 64) uint8, RGBA, not premultiplied."""
    styles: list[str]
    names: list[str]
    categories: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: list[int]) -> Drawings:
        return Drawings(
            images=self.images[rows],
            styles=[self.styles[row] for row in rows],
            names=[self.names[row] for row in rows],
            categories=[self.categories[row] for row in rows],
        )


def load_drawings(styles: tuple[str, ...], folder: Path = EMBEDDED) -> Drawings:
    """Read the drawings of `styles` from the tar files and drawings.csv in `folder`."""
    with (folder / "drawings.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["style"] in styles]
    wanted = {row["path"] for row in rows}
    pixels: dict[str, numpy.ndarray] = {}
    for archive in ("drawings.tar", "openmoji.tar"):
        with tarfile.open(folder / archive) as tar:
            for member in tar:
                if member.name in wanted:
                    data = tar.extractfile(member)
                    assert data is not None, member.name
                    pixels[member.name] = numpy.asarray(Image.open(io.BytesIO(data.read())).convert("RGBA"))
    images = (
        torch.from_numpy(numpy.stack([pixels[row["path"]] for row in rows])).permute(0, 3, 1, 2).contiguous()
    )
    return Drawings(
        images=images,
        styles=[row["style"] for row in rows],
        names=[row["name"] for row in rows],
        categories=[row["category"] for row in rows],
    )


def premultiply(images: Tensor) -> Tensor:
    """(N, 4, H, W) uint8 RGBA -> float32 in [0, 1] with colours multiplied by alpha."""
    rgba = images.float() / 255
    return torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)


def transforms_of(uniform: Tensor) -> Tensor:
    """(N, 4) numbers in [0, 1] -> (N, 2, 3) maps from output to drawing coordinates, both in [-1, 1], as
    affine_grid takes them.
    """
    scale = MIN_SCALE + (1 - MIN_SCALE) * uniform[:, 0]
    angle = (2 * uniform[:, 1] - 1) * math.radians(MAX_DEGREES)
    room = 1 - scale
    shift_x, shift_y = (2 * uniform[:, 2] - 1) * room, (2 * uniform[:, 3] - 1) * room
    return transform(scale, angle, shift_x, shift_y)


def transform(scale: Tensor, angle: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """The inverse affine map of "scale, turn by `angle` radians, then shift" as (N, 2, 3)."""
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    first = torch.stack([cos, sin, -(cos * shift_x + sin * shift_y)], dim=1)
    second = torch.stack([-sin, cos, -(-sin * shift_x + cos * shift_y)], dim=1)
    return torch.stack([first, second], dim=1)


def backgrounds_of(uniform: Tensor) -> Tensor:
    """(N, 9) numbers in [0, 1] -> (N, 3, 64, 64) in [0, 1]: white, or two colours beside an
    edge.
    """
    white, angle = uniform[:, 0] < WHITE_SHARE, 2 * math.pi * uniform[:, 1].view(-1, 1, 1)
    first, second = uniform[:, 2:5, None, None], uniform[:, 5:8, None, None]
    offset = MAX_OFFSET * (2 * uniform[:, 8].view(-1, 1, 1) - 1)
    axis = torch.linspace(-1, 1, SIZE, device=uniform.device)
    across = torch.cos(angle) * axis.view(1, 1, SIZE) + torch.sin(angle) * axis.view(1, SIZE, 1)
    mix = (0.5 + (across - offset) / EDGE_WIDTH).clamp(0, 1)
    backgrounds = torch.lerp(first, second, mix.unsqueeze(1))
    backgrounds[white] = 1.0
    return backgrounds


def compose(premultiplied: Tensor, transforms: Tensor, backgrounds: Tensor) -> Tensor:
    """Lay (N, 4, 64, 64) premultiplied drawings in [0, 1] over (N, 3, 64, 64) backgrounds -> (N, 3, 64, 64)
    float32 in [-1, 1].
    """
    grid = F.affine_grid(transforms, list(premultiplied.shape), align_corners=False)
    moved = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return 2 * (moved[:, :3] + (1 - moved[:, 3:]) * backgrounds) - 1


def place(images: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 4, 64, 64) uint8 drawings -> (N, 3, 64, 64) float32 in [-1, 1], each placed at random."""
    uniform = torch.rand(len(images), NUMBERS, generator=generator, device=generator.device)
    return compose(premultiply(images), transforms_of(uniform[:, :4]), backgrounds_of(uniform[:, 4:]))
