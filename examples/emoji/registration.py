"""How far a picture is from a drawing once the drawing's placement is searched for.

The distance of picture x to drawing d is the smallest root mean square colour difference (colours in [0,
1]) over the pixels that d covers, weighted by its alpha, over scale, angle and shift: the background plays
no part. The search tries a grid at 32x32 and then improves the best placement by gradient descent at 64x64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from placements import MAX_DEGREES, MIN_SCALE, premultiply, transform
from torch import Tensor

LOWEST = torch.tensor([MIN_SCALE, -math.radians(MAX_DEGREES), -1.0, -1.0])
HIGHEST = torch.tensor([1.0, math.radians(MAX_DEGREES), 1.0, 1.0])


def grid_of_placements() -> Tensor:
    """(P, 4) scale, angle in radians, shift x, shift y: shifts at fractions of the room a scale leaves."""
    fractions = (-0.9, -0.45, 0.0, 0.45, 0.9)
    return torch.tensor(
        [
            (scale, angle * math.radians(MAX_DEGREES), x * (1 - scale), y * (1 - scale))
            for scale in (0.64, 0.73, 0.82, 0.91, 0.99)
            for angle in (-0.67, 0.0, 0.67)
            for x in fractions
            for y in fractions
        ]
    )


def squared_distance(pictures: Tensor, drawings: Tensor, placements: Tensor) -> Tensor:
    """(N, 3, S, S) pictures in [0, 1], (N, 4, S, S) premultiplied drawings, (N, 4) placements -> (N,)."""
    grid = F.affine_grid(transform(*placements.unbind(1)), list(drawings.shape), align_corners=False)
    moved = F.grid_sample(drawings, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    colour, alpha = moved[:, :3], moved[:, 3:]
    # alpha * (x - c)^2 with premultiplied c' = alpha * c is (alpha * x - c')^2 / alpha.
    errors = (alpha * pictures - colour).square() / alpha.clamp(min=1e-3)
    return errors.sum(dim=(1, 2, 3)) / (3 * alpha.sum(dim=(1, 2, 3)).clamp(min=1.0))


@torch.no_grad()
def best_on_grid(picture: Tensor, drawing: Tensor, grid: Tensor) -> Tensor:
    """(4,) the best placement of one (4, 64, 64) drawing for one (3, 64, 64) picture."""
    small_picture = F.avg_pool2d(picture, 2).expand(len(grid), -1, -1, -1)
    small_drawing = F.avg_pool2d(drawing, 2).expand(len(grid), -1, -1, -1)
    return grid[squared_distance(small_picture, small_drawing, grid).argmin()]


def registered_distance(pictures: Tensor, drawings: Tensor, steps: int = 25) -> Tensor:
    """(N, 3, 64, 64) pictures in [-1, 1] and (N, 4, 64, 64) uint8 drawings, pair by pair -> (N,)
    distances.
    """
    grid = grid_of_placements()
    distances = []
    for start in range(0, len(pictures), 64):
        picture = (pictures[start : start + 64].float() + 1) / 2
        drawing = premultiply(drawings[start : start + 64])
        placements = torch.stack([best_on_grid(x, d, grid) for x, d in zip(picture, drawing, strict=True)])
        placements.requires_grad_(True)
        optimizer = torch.optim.Adam([placements], lr=0.01)
        best = torch.full((len(picture),), math.inf)
        for _ in range(steps):
            squared = squared_distance(picture, drawing, placements)
            best = torch.minimum(best, squared.detach())
            optimizer.zero_grad()
            squared.sum().backward()
            optimizer.step()
            with torch.no_grad():
                placements.clamp_(LOWEST, HIGHEST)
        distances.append(best.sqrt())
    return torch.cat(distances)
