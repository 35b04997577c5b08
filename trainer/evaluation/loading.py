"""Pictures on their way to an encoder: decoded and cut to size by threads, a few batches ahead.

    read ─picture→ prepare ─[S, S, 3]→ batches in order

Threads are enough: Pillow decodes and scales outside Python's lock. Shapes: N pictures of a batch, S pixels.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainer.augment_config import AugmentConfig
from trainer.augment_parameters import draw_parameters
from trainer.errors import StopRequestedError
from trainer.pool.images import ImageHWC

BATCHES_AHEAD = 2
Prepare = Callable[[ImageHWC, int], ImageHWC]
"""(picture, its row) -> what the encoder sees."""


def load_batches(
    read: Callable[[int], ImageHWC],
    rows: Sequence[int],
    prepare: Prepare,
    *,
    batch_images: int,
    workers: int,
    stop: threading.Event,
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """(rows, uint8 [N, S, S, 3]) in the order of `rows`.

    Raises what `read` raises, and StopRequestedError.
    """

    def one(row: int) -> ImageHWC:
        return prepare(read(row), row)

    chunks = [rows[start : start + batch_images] for start in range(0, len(rows), batch_images)]
    waiting: deque[tuple[Sequence[int], list[Future[ImageHWC]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="picture")
    try:
        for number in range(len(chunks) + BATCHES_AHEAD):
            if number < len(chunks):
                waiting.append((chunks[number], [pool.submit(one, row) for row in chunks[number]]))
            if number >= BATCHES_AHEAD:
                if stop.is_set():
                    raise StopRequestedError("asked to stop while evaluating")
                chunk, futures = waiting.popleft()
                yield chunk, torch.from_numpy(np.stack([future.result() for future in futures]))
    finally:
        pool.shutdown(cancel_futures=True)


def centre_crop(size: int, shorter: int, filter_: Image.Resampling) -> Prepare:
    """Scales the shorter side to `shorter` pixels, then cuts the middle size x size, as torchvision does."""

    def prepare(image_HWC: ImageHWC, row: int) -> ImageHWC:
        height, width, _ = image_HWC.shape
        short = min(height, width)
        if short != shorter:
            new = (int(shorter * width / short), int(shorter * height / short))
            image_HWC = np.asarray(Image.fromarray(image_HWC).resize(new, filter_))
            height, width, _ = image_HWC.shape
        top, left = round((height - size) / 2), round((width - size) / 2)
        return image_HWC[top : top + size, left : left + size]

    return prepare


def random_crop(size: int, seed: int, epoch: int) -> Prepare:
    """A random resized crop of scale 0.08 to 1 and a flip, bilinear; drawn from (seed, row, epoch) alone."""
    config = AugmentConfig(crop_size=size, jitter=0.0, grayscale=0.0, blur=0.0)

    def prepare(image_HWC: ImageHWC, row: int) -> ImageHWC:
        drawn = draw_parameters(config, [(seed, row, 0, epoch)], *image_HWC.shape[:2])
        top, left, height, width = (int(value) for value in drawn.box_N4[0])
        image = Image.fromarray(np.ascontiguousarray(image_HWC[top : top + height, left : left + width]))
        cut = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        return cut[:, ::-1] if drawn.flip_N[0] else cut

    return prepare
