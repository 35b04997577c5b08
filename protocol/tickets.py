"""The order for one group. A ticket holds all that its pixels depend on beyond the generation spec."""

from typing import Annotated

from msgspec import Meta, Struct

Id63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
CAPTION_CHARACTERS_MAX = 16384


class Ticket(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to draw, from which seeds, how. Pure function of the plan and `group_id`."""

    group_id: Id63
    caption_id: Id63
    caption: Annotated[str, Meta(max_length=CAPTION_CHARACTERS_MAX)]
    first_view: Id63
    """Number of the first view, counted through all visits to this caption."""
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1, max_length=256)]
    """One a view: `view_seed(run_seed, caption_id, first_view + i)`."""
    guidance: Annotated[tuple[float, ...], Meta(min_length=1, max_length=256)]
    """One a view."""

    @property
    def views(self) -> int:
        """How many images the group has."""
        return len(self.seeds)
