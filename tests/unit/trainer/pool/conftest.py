"""Small pools for the tests of every module of `trainer.pool`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.generation import GenerationSpec
from trainer.pool.about import About
from trainer.pool.images import ImageHWC, encode_image
from trainer.pool.store import EncodedGroup
from trainer.pool.writer import PoolWriter

SPEC = GenerationSpec(views=2, size=16)


def picture(caption: str, image: int) -> ImageHWC:
    """Noise that caption and number decide."""
    return np.random.default_rng([len(caption), ord(caption[-1]), image]).integers(
        0, 256, size=(16, 16, 3), dtype=np.uint8
    )


@pytest.fixture
def picture_of() -> Callable[[str, int], ImageHWC]:
    """The picture that `write_pool` stores as that caption's image of that number."""
    return picture


@pytest.fixture
def about() -> Callable[..., About]:
    """The description of a small pool."""

    def make(**values: Any) -> About:
        fields = {"format": "webdataset", "picture": "webp", "plan": "p", "seed": 0, "generation": SPEC}
        return About(**fields | values)

    return make


@pytest.fixture
def encoded() -> Callable[..., EncodedGroup]:
    """A group of two images of a caption."""

    def make(group_id: int, caption: str, first: int = 0, **values: Any) -> EncodedGroup:
        numbers = (first, first + 1)
        fields: dict[str, Any] = {
            "group_id": group_id,
            "caption": caption,
            "images": numbers,
            "pictures": tuple(encode_image(picture(caption, n), "webp") for n in numbers),
            "seeds": tuple(1000 + n for n in numbers),
            "guidance": (2.5, 2.5),
            "engine": "e",
            "content": "c",
        }
        return EncodedGroup(**fields | values)

    return make


@pytest.fixture
def write_pool(about: Callable[..., About], encoded: Callable[..., EncodedGroup]) -> Callable[..., Path]:
    """A pool of `captions` with `images` images each, a segment for every two of these."""

    def write(folder: Path, captions: list[str], images: int = 4, **values: Any) -> Path:
        described = about(**values)
        writer = PoolWriter(folder, described)
        for first in range(0, images, 2):
            for number, caption in enumerate(captions):
                pictures = tuple(
                    encode_image(picture(caption, n), described.picture) for n in (first, first + 1)
                )
                writer.add(encoded(first * 1000 + number, caption, first, pictures=pictures))
            writer.seal()
        writer.close()
        return folder

    return write
