"""How groups are drawn: the `[generation]` section, sent to every worker in `welcome`."""

from typing import Annotated

from msgspec import Meta, Struct


class GenerationSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides a group's pixels apart from the weights."""

    views: Annotated[int, Meta(ge=1, le=256, description="images drawn for one ticket (m)")] = 6
    size: Annotated[int, Meta(ge=8, le=4096, description="width and height of an image in pixels")] = 64
    draw_size: Annotated[
        int,
        Meta(
            ge=0,
            le=4096,
            description="width and height at which the model draws, where that is more than `size`: images"
            " are scaled down on the device; 0 is `size`",
        ),
    ] = 0
    steps: Annotated[int, Meta(ge=1, le=1000, description="denoising steps an image")] = 4
    guidance: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=100)], ...],
        Meta(
            min_length=1,
            max_length=64,
            description="guidance scales; one is drawn from the list for each group",
        ),
    ] = (2.0,)
    sampler: Annotated[
        str,
        Meta(
            max_length=32,
            description="denoising rule: ddim, euler, dpm++, lcm, turbo (Euler that renews noise), or own (of"
            " the pipeline engine)",
        ),
    ] = "ddim"
    negative_prompt: Annotated[
        str,
        Meta(
            max_length=2000, description="text of the unconditional branch; unused where guidance is embedded"
        ),
    ] = ""

    @property
    def drawn_size(self) -> int:
        """Width and height of what the model draws."""
        return self.draw_size or self.size
