"""A fake engine: patterns computed from the ticket alone, in numpy. For tests, and for trying a trainer.

The caption decides colours and pattern, the seed decides place, size, brightness and grain: views of a
caption look alike, those of others do not, so an encoder can learn from them.
"""

import time
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from generator_service.drawing import OnHost
from generator_service.engine import Abandoned, check_ticket, groups_of
from generator_service.errors import DrawAbandonedError
from protocol.generation import GenerationSpec
from protocol.identity import digest_of
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

WEIGHTS = digest_of("streamrep fake engine 1")
"""Stands in for the digest of weights; changes whenever the same ticket would give other pixels."""

Plane = npt.NDArray[np.float64]

_NAP_SECONDS = 0.05


class FakeEngine:
    """Deterministic on every machine. Speed is limited by time slept, a whole static batch at a time."""

    exact = True
    summary = "fake engine, no model"

    def __init__(self, spec: GenerationSpec, *, batch_images: int, images_per_second: float = 0.0) -> None:
        """`images_per_second` = 0 is as fast as it can. Raises UserError when no group fits the batch."""
        self._spec = spec
        self._groups = groups_of(batch_images, spec)
        self.batch_images = self._groups * spec.views
        self.batch_seconds = self.batch_images / images_per_second if images_per_second else 0.0
        self.content_hash = digest_of({"weights": WEIGHTS, "generation": msgspec.to_builtins(spec)})
        self.engine_hash = digest_of({"engine": "fake", "batch_images": self.batch_images})

    def begin(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> OnHost:
        """See `Engine.begin`."""
        return OnHost(self.draw(tickets, abandoned))

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        """See `Engine.draw`."""
        if not 0 < len(tickets) <= self._groups:
            raise ValueError(f"expected 1 to {self._groups} tickets, got {len(tickets)}")
        due = time.monotonic() + self.batch_seconds
        for ticket in tickets:
            check_ticket(ticket, self._spec)
        groups = [draw_fake_group(ticket, self._spec.size) for ticket in tickets]
        while (left := due - time.monotonic()) > 0:
            if abandoned():
                raise DrawAbandonedError(f"{left:.1f} s before the fake batch was due")
            time.sleep(min(left, _NAP_SECONDS))
        return groups

    def cuts(self, caption: str) -> bool:
        """Never: no tokenizer is in the way."""
        return False


def draw_fake_group(ticket: Ticket, size: int) -> ImagesNHWC:
    """uint8 [views, size, size, 3] of a ticket."""
    return np.stack([_draw_view(ticket.caption, seed, size) for seed in ticket.seeds])


def _draw_view(caption: str, seed: int, size: int) -> ImagesNHWC:
    of_caption = np.random.default_rng(xxhash.xxh3_64_intdigest(caption.encode()))
    of_view = np.random.default_rng(seed)
    colours_23 = of_caption.integers(0, 256, size=(2, 3))
    kind, waves = int(of_caption.integers(4)), float(of_caption.uniform(1.5, 5.0))
    centre = of_view.uniform(0.3, 0.7, size=2)
    waves *= float(of_view.uniform(0.8, 1.25))
    along = (np.arange(size) + 0.5) / size
    y_HW, x_HW = np.meshgrid(along - centre[0], along - centre[1], indexing="ij")
    mask_HW = _pattern(kind, y_HW, x_HW, waves)
    image_HWC = np.where(mask_HW[..., None], colours_23[0], colours_23[1])
    image_HWC = image_HWC * of_view.uniform(0.7, 1.0)
    grain_HWC = of_view.integers(-8, 9, size=image_HWC.shape)
    levels_HWC: ImagesNHWC = np.clip(np.rint(image_HWC) + grain_HWC, 0, 255).astype(np.uint8)
    return levels_HWC


def _pattern(kind: int, y_HW: Plane, x_HW: Plane, waves: float) -> npt.NDArray[np.bool_]:
    """bool [H, W]: stripes, checks, rings or a disc."""
    radius_HW = np.hypot(y_HW, x_HW)
    if kind == 3:
        return np.less(radius_HW, 1.0 / waves)
    columns_HW = np.floor(x_HW * 2 * waves)
    stripes_HW = (columns_HW, columns_HW + np.floor(y_HW * 2 * waves), np.floor(radius_HW * 2 * waves))[kind]
    mask_HW: npt.NDArray[np.bool_] = np.equal(stripes_HW % 2, 0)
    return mask_HW
