"""Pictures cut to size as torchvision's transforms do, in order, whatever the threads."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from trainer.augment_config import AugmentConfig
from trainer.augment_parameters import draw_parameters
from trainer.errors import StopRequestedError
from trainer.evaluation.loading import centre_crop, load_batches, random_crop
from trainer.pool.images import ImageHWC

LANDSCAPE = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)


def test_centre_crop_is_resize_then_the_middle() -> None:
    """Resize(16) of 90 x 40 is 36 x 16; the middle 14 x 14 begins at (11, 1)."""
    got = centre_crop(14, 16, Image.Resampling.BILINEAR)(LANDSCAPE, 0)
    resized = np.asarray(Image.fromarray(LANDSCAPE).resize((36, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(got, resized[1:15, 11:25])


def test_a_picture_of_its_size_is_left_as_it_is() -> None:
    """No filter touches it."""
    square = LANDSCAPE[:40, :40]
    np.testing.assert_array_equal(centre_crop(40, 40, Image.Resampling.BICUBIC)(square, 0), square)


def test_random_crops_follow_seed_row_and_epoch_alone() -> None:
    """The box and the flip are those of draw_parameters; other epochs have others."""
    flips = set()
    for epoch in range(8):
        got = random_crop(16, 5, epoch)(LANDSCAPE, 7)
        drawn = draw_parameters(AugmentConfig(), [(5, 7, 0, epoch)], 40, 90)
        top, left, height, width = drawn.box_N4[0].tolist()
        cut = Image.fromarray(LANDSCAPE).crop((left, top, left + width, top + height))
        expected = np.asarray(cut.resize((16, 16), Image.Resampling.BILINEAR))
        flips.add(bool(drawn.flip_N[0]))
        np.testing.assert_array_equal(got, expected[:, ::-1] if drawn.flip_N[0] else expected)
    assert flips == {True, False}


def test_batches_keep_their_order_and_reading_stays_a_little_ahead() -> None:
    """Slow pictures do not overtake; of 100 pictures no more are read than the batches ahead need."""
    read: list[int] = []

    def picture(row: int) -> ImageHWC:
        time.sleep(0.003 * (row % 3))
        read.append(row)
        return np.full((2, 2, 3), row, np.uint8)

    batches = load_batches(
        picture,
        range(99, -1, -1),
        lambda image, row: image,
        batch_images=8,
        workers=4,
        stop=threading.Event(),
    )
    rows, images = next(batches)
    assert list(rows) == list(range(99, 91, -1))
    assert images[:, 0, 0, 0].tolist() == list(rows)
    assert len(read) <= 3 * 8
    rest = [row for rows, _ in batches for row in rows]
    assert rest == list(range(91, -1, -1))
    assert len(rest[-4:]) == 4


def test_a_stop_ends_the_reading() -> None:
    """At the next batch."""
    stop = threading.Event()
    batches = load_batches(
        lambda row: np.zeros((2, 2, 3), np.uint8),
        range(100),
        lambda image, row: image,
        batch_images=4,
        workers=2,
        stop=stop,
    )
    next(batches)
    stop.set()
    with pytest.raises(StopRequestedError):
        next(batches)
