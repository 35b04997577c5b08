"""Hashes that name things: captions, seeds, digests. Stable across machines, versions and processes."""

import struct
import unicodedata
from typing import Any

import msgspec
import xxhash

_MASK_63_BITS = (1 << 63) - 1


def normalise_caption(text: str) -> str:
    """NFC form without surrounding white space: the text that is hashed, encoded and recorded."""
    return unicodedata.normalize("NFC", text).strip()


def caption_id(text: str) -> int:
    """63-bit hash of the caption's NFC text, so that the same text is the same caption everywhere."""
    return xxhash.xxh3_64_intdigest(normalise_caption(text).encode()) & _MASK_63_BITS


def view_seed(run_seed: int, caption_id: int, view: int) -> int:
    """32-bit seed of one view's noise generator; `view` is numbered through all visits to the caption."""
    key = struct.pack("<QQQ", run_seed & (2**64 - 1), caption_id, view)
    return xxhash.xxh3_64_intdigest(key) & 0xFFFFFFFF


def digest_of(value: Any) -> str:
    """32 hex digits naming a value built of maps, lists, strings and numbers; keys are sorted first."""
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(value, order="deterministic"))
