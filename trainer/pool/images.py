"""One picture to bytes and back. Bytes are not trusted: anything wrong with them is a DamagedImageError."""

import io
import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from trainer.errors import DamagedImageError

PictureFormat = Literal["webp", "png", "jpeg"]
ImageHWC = npt.NDArray[np.uint8]
"""[height, width, 3] uint8."""

SUFFIXES: dict[PictureFormat, str] = {"webp": ".webp", "png": ".png", "jpeg": ".jpg"}
READABLE_SUFFIXES = frozenset({".webp", ".png", ".jpg", ".jpeg"})
JPEG_QUALITY = 92
PIXELS_MAX = 4096 * 4096
"""Of one picture: the largest that `generation.size` allows. Judged by the header, before any pixel."""
BYTES_MAX = 64 * 2**20
"""Of one encoded picture."""

_PILLOW_NAMES = ("WEBP", "PNG", "JPEG")


def encode_image(image_HWC: ImageHWC, picture_format: PictureFormat) -> bytes:
    """WebP and PNG keep every bit; JPEG does not, and is many times smaller."""
    buffer = io.BytesIO()
    image = Image.fromarray(image_HWC)
    match picture_format:
        case "webp":
            # For lossless pictures `quality` is effort: more makes them a few percent smaller, and takes many
            # times as long.
            image.save(buffer, format="WEBP", lossless=True, quality=0, method=2)
        case "png":
            image.save(buffer, format="PNG", compress_level=6)
        case "jpeg":
            image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def decode_image(data: bytes, size: int = 0) -> ImageHWC:
    """[height, width, 3] uint8. Raises DamagedImageError.

    With a `size` a picture of another one is cropped to its centre square and scaled to size x size; one that
    has it comes back bit for bit.
    """
    image = _open(data)
    try:
        rgb = image.convert("RGB")
        if size and rgb.size != (size, size):
            rgb = ImageOps.fit(rgb, (size, size), method=Image.Resampling.BICUBIC)
        return np.array(rgb, dtype=np.uint8)
    except Exception as error:  # Pillow's decoders raise errors of many types on damaged data
        raise DamagedImageError("undecodable", str(error) or type(error).__name__) from error


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) as the header has it. Raises DamagedImageError."""
    width, height = _open(data).size
    return width, height


def _open(data: bytes) -> Image.Image:
    if len(data) > BYTES_MAX:
        raise DamagedImageError("too_large", f"{len(data)} bytes, at most {BYTES_MAX} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a picture made to fill the memory
            image = Image.open(io.BytesIO(data), formats=_PILLOW_NAMES)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DamagedImageError("too_large", str(error)) from error
    except Exception as error:  # as above: a damaged header may be anything
        raise DamagedImageError("undecodable", str(error) or type(error).__name__) from error
    width, height = image.size
    if width * height > PIXELS_MAX:
        raise DamagedImageError("too_large", f"{width} x {height} pixels, at most {PIXELS_MAX} are read")
    return image
