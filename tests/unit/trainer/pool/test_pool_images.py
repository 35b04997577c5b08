"""Pictures to bytes and back, and bytes that are no pictures."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainer.errors import DamagedImageError
from trainer.pool.images import BYTES_MAX, PictureFormat, decode_image, encode_image, image_size

NOISE = np.random.default_rng(0).integers(0, 256, size=(20, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize("picture_format", ["webp", "png"])
def test_lossless_formats_keep_every_bit(picture_format: PictureFormat) -> None:
    """Also with a size that the picture has."""
    data = encode_image(NOISE, picture_format)
    assert np.array_equal(decode_image(data), NOISE)
    assert np.array_equal(decode_image(data, 20), NOISE)
    assert image_size(data) == (20, 20)


def test_jpeg_is_near_and_smaller() -> None:
    """On a smooth picture, as drawings are."""
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    data = encode_image(smooth, "jpeg")
    assert np.abs(decode_image(data).astype(int) - smooth).mean() < 3
    assert len(data) < len(encode_image(NOISE, "png"))


def test_another_size_is_the_centre_square_scaled() -> None:
    """Against Pillow's own resize of that box."""
    wide = np.random.default_rng(1).integers(0, 256, size=(20, 40, 3), dtype=np.uint8)
    box = (10, 0, 30, 20)
    expected = np.asarray(Image.fromarray(wide).resize((8, 8), Image.Resampling.BICUBIC, box=box))
    assert np.array_equal(decode_image(encode_image(wide, "png"), 8), expected)


def test_greyscale_and_palettes_become_three_channels() -> None:
    """Pools made elsewhere may have either."""
    for mode in ("L", "P", "RGBA"):
        buffer = io.BytesIO()
        Image.fromarray(NOISE).convert(mode).save(buffer, format="PNG")
        assert decode_image(buffer.getvalue()).shape == (20, 20, 3)


def _png_header(width: int, height: int) -> bytes:
    fields = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    chunks = [fields, b"IDAT" + data, b"IEND"]
    packed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("size", [(4097, 4096), (10_000, 10_000), (60_000, 60_000), (2**31 - 1, 1)])
def test_absurd_sizes_are_refused_by_their_header(size: tuple[int, int]) -> None:
    """Before memory for their pixels is asked for; also where Pillow would only warn."""
    with pytest.raises(DamagedImageError) as caught:
        decode_image(_png_header(*size))
    assert caught.value.reason == "too_large"
    with pytest.raises(DamagedImageError):
        image_size(_png_header(*size))


def test_too_many_bytes_are_not_looked_at() -> None:
    """Whatever they are."""
    with pytest.raises(DamagedImageError) as caught:
        decode_image(bytes(BYTES_MAX + 1))
    assert caught.value.reason == "too_large"


def test_formats_that_nobody_asked_for_are_refused() -> None:
    """Pillow reads some forty more, each with decoders of its own."""
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, format="TIFF")
    with pytest.raises(DamagedImageError):
        decode_image(buffer.getvalue())


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["webp", "png", "jpeg"]),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6),
    st.integers(0, 3000),
)
def test_damaged_bytes_are_an_image_or_one_kind_of_error(
    picture_format: PictureFormat, changes: list[tuple[int, int]], length: int
) -> None:
    """Nothing else comes out of a decoder, however the bytes were changed or cut."""
    data = bytearray(encode_image(NOISE, picture_format))
    for at, value in changes:
        data[at % len(data)] = value
    cut = bytes(data[: max(1, len(data) - length)]) if length < len(data) else bytes(data)
    try:
        image = decode_image(cut, 20)
    except DamagedImageError:
        return
    assert image.shape == (20, 20, 3)
    assert image.dtype == np.uint8
