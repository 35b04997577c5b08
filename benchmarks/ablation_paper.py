"""What the paper found, as a difference between arms that is above zero where `bench ablation` agrees.

StableRep is Tian et al. 2023 (arXiv:2306.00984), its README that of google-research/syn-rep-learn/StableRep,
SynCLR Tian et al. 2023 (arXiv:2312.17742). Figures are ImageNet linear accuracy in percent where nothing
else is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One direction."""

    text: str
    source: str
    """Where the paper has it, and its figures."""
    difference: Mapping[str, int]
    """Factors of arms, by label; they add up to 0."""


def _over(better: str, worse: str, source: str, text: str = "") -> Claim:
    return Claim(text=text or f"{better} over {worse}", source=source, difference={better: 1, worse: -1})


_TABLE_1 = "StableRep, Table 1, generated images of CC12M"


def _objectives(name: str) -> tuple[Claim, ...]:
    def over(better: str, worse: str, source: str) -> Claim:
        return _over(f"{name}{better}", f"{name}{worse}", source)

    return (
        over("stablerep", "simclr", f"{_TABLE_1}: 73.5 over 63.7"),
        over("stablerep", "clip", f"{_TABLE_1}: 73.5 over 67.8"),
        over("clip", "simclr", f"{_TABLE_1}: 67.8 over 63.7"),
        over("stablerep+", "stablerep", "README, CC12M 1x: 74.4 with text over 72.8"),
    )


CLAIMS: Mapping[str, tuple[Claim, ...]] = {
    "l": (
        _over("l = 10", "l = 1", "StableRep, ablation of l: 66.2 at l = 8 over 61.2 at l = 1"),
        _over("l = 10", "l = 4", "SynCLR, CC12M: 73.5 at l = 10 over 73.0 at l = 4"),
    ),
    "m": (
        _over("m = 2", "m = 1 (simclr)", f"{_TABLE_1}: 73.5 with m = 6 over 63.7 of SimCLR"),
        _over(
            "m = 6", "m = 2", "StableRep's choice, m = 6; the figures of its ablation of m are not at hand"
        ),
    ),
    "guidance": (
        _over("w = 2", "w = 8", "StableRep, guidance: best at 2 to 3 of 2 to 12"),
        _over("w = 2", "w = 4", "SynCLR, Table 3: 72.8 at 2 over 72.6 at 4"),
    ),
    "objective": (
        *_objectives(""),
        *_objectives("vit, "),
        _over(
            "vit, stablerep", "vit, mae", "SynCLR, segmentation of ADE20k: 49.4 of StableRep over 48.1 of MAE"
        ),
    ),
    "augmentation": (
        Claim(
            text="what the default loses when weakened is less on a fresh stream than on a pool",
            source="StableRep: augmentation is kept because each image of the pool is used in many epochs",
            difference={"fresh, weak": 1, "fresh, default": -1, "pool, weak": -1, "pool, default": 1},
        ),
        _over("pool, default", "pool, none", "the same: augmentation helps on a pool"),
    ),
}


def claims_of(name: str, trained_images: int) -> tuple[Claim, ...]:
    """The directions of an ablation whose longest runs train on so many images of a caption."""
    if name != "reuse":
        return CLAIMS[name]
    few = trained_images // 8
    source = "README, CC12M, one pool: 75.7 at 3x, about 28 uses an image, over 72.8 at 1x, about 9"
    return (_over(f"{few} images x 8", f"{few} images x 1", source),)
