"""What each objective asks of a batch. Read without torch: a run file is refused before anything starts."""

from dataclasses import dataclass
from typing import Literal

ObjectiveName = Literal["stablerep", "stablerep+", "supcon", "simclr", "clip", "mae"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """`generation.views` must lie in views_min..views_max, for the reason `views_why`."""

    views_min: int = 1
    views_max: int = 256
    views_why: str = ""
    crops: int = 1
    """Augmentations that the encoder sees of each image."""
    classes: bool = False
    """Whether every caption must name a class of `captions.classes`."""
    model_types: tuple[str, ...] = ()
    """The only values of `model.encoder.model_type` it can train; empty means any."""


_POSITIVES = "since a group's images are each other's positives"
NEEDS: dict[ObjectiveName, Needs] = {
    "stablerep": Needs(views_min=2, views_why=_POSITIVES),
    "stablerep+": Needs(views_min=2, views_why=_POSITIVES),
    "supcon": Needs(views_min=2, views_why="so that every image has one of its class", classes=True),
    "simclr": Needs(views_max=1, views_why="since its positives are two augmentations of one image", crops=2),
    "clip": Needs(views_max=1, views_why="since it pairs each caption with one image"),
    "mae": Needs(model_types=("vit",)),
}
