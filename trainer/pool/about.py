"""pool.json: what a pool is. It is written once, before the first image."""

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from protocol.errors import UserError
from protocol.generation import GenerationSpec
from trainer.config import TrainerConfig
from trainer.plan import Plan
from trainer.pool.images import PictureFormat
from trainer.pool.segment import write_whole

PoolFormat = Literal["webdataset", "folders"]
ABOUT = "pool.json"


class About(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pool's own description."""

    version: int = 1
    format: PoolFormat
    picture: PictureFormat
    plan: str
    """Digest of captions, seed and generation spec: the images are those of this plan's tickets."""
    seed: int
    generation: GenerationSpec
    images_per_caption: int = 0
    """The most that it was ever to be filled with; 0 where runs alone wrote to it."""


def describe(config: TrainerConfig, plan: Plan, images_per_caption: int = 0) -> About:
    """The pool that a run file asks for."""
    return About(
        format=config.pool.format,
        picture=config.pool.picture,
        plan=plan.digest,
        seed=config.run.seed,
        generation=config.generation,
        images_per_caption=images_per_caption,
    )


def read_about(folder: Path) -> About | None:
    """None for a pool that was made elsewhere. Raises UserError for a file that can't be read."""
    path = folder / ABOUT
    try:
        return msgspec.json.decode(path.read_bytes(), type=About)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            "pool can't be read",
            expected="a pool.json that this version wrote",
            got=str(error),
            where=str(path),
            mend="restore it, or fill another folder",
        ) from error


def write_about(folder: Path, about: About) -> None:
    """By rename."""
    write_whole(folder / ABOUT, msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")
