"""The section of a run file that is about augmentation."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Unit = Annotated[float, Meta(ge=0, le=1)]


class AugmentConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[augment]: StableRep's list, each with its probability; parameters are drawn for every image."""

    strength: Annotated[
        Literal["strong", "weak"],
        Meta(description="strong is the whole list; weak is the crop (scale 0.5 to 1) alone"),
    ] = "strong"
    crop_size: Annotated[int, Meta(ge=8, description="side of the encoder's input in pixels")] = 64
    crop_scale: Annotated[
        tuple[Unit, Unit], Meta(description="area of a random crop, least and most, as a share of the image")
    ] = (0.08, 1.0)
    downsample: Annotated[
        Unit,
        Meta(
            description="probability that an image is first scaled down to a quarter or a half of its size,"
            " and up again; the paper tries 0.05"
        ),
    ] = 0.0
    flip: Annotated[Unit, Meta(description="probability of a left-right flip")] = 0.5
    jitter: Annotated[Unit, Meta(description="probability of the colour jitter")] = 0.8
    jitter_strength: Annotated[
        tuple[Unit, Unit, Unit, Annotated[float, Meta(ge=0, le=0.5)]],
        Meta(description="brightness, contrast, saturation, hue"),
    ] = (0.4, 0.4, 0.4, 0.1)
    grayscale: Annotated[Unit, Meta(description="probability of losing all colour")] = 0.2
    blur: Annotated[Unit, Meta(description="probability of a Gaussian blur")] = 0.5
    blur_sigma: Annotated[
        tuple[float, float],
        Meta(description="its sigma in pixels of a 224 pixel input, scaled with crop_size"),
    ] = (0.1, 2.0)
