"""Totals of a worker: which images count as of one colour."""

import numpy as np
import pytest

from generator_service.channel import DrawnGroup
from generator_service.tally import Tally


@pytest.mark.parametrize("size", [8, 64, 100])
def test_only_images_of_one_colour_throughout_are_constant(size: int) -> None:
    """Black, coloured, and three that differ from that in one value of one pixel somewhere."""
    images = np.zeros((6, size, size, 3), np.uint8)
    images[1:5] = (10, 20, 30)
    images[2, size - 1, size - 1, 2] = 31
    images[3, 0, 1, 0] = 11
    images[4, size // 2, size // 2, 1] = 0
    images[5] = np.random.default_rng(0).integers(0, 256, (size, size, 3))
    tally = Tally()
    tally.count([DrawnGroup(rank=0, group_id=1, images_NHWC=images, draw_seconds=1.0)], 1.0)
    drawn = tally.drawn()
    assert (drawn.images, drawn.constant_images) == (6, 2)
