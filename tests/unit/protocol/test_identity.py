"""Hashes must never change: pools, ledgers and seeds of old runs depend on them."""

import itertools
import struct
import unicodedata

import xxhash

from protocol.identity import caption_id, digest_of, normalise_caption, view_seed


def test_caption_ids_are_pinned() -> None:
    """The id of a caption is the same in every version."""
    assert caption_id("grinning face") == 8572379252198103802


def test_the_same_text_is_the_same_caption() -> None:
    """Composed and decomposed forms, and white space around, make no difference."""
    decomposed = unicodedata.normalize("NFD", "café")
    assert decomposed != "café"
    assert caption_id(f"  {decomposed}\n") == caption_id("café")
    assert normalise_caption(decomposed) == "café"
    assert 0 <= caption_id("x") < 2**63


def test_view_seeds_differ_by_run_caption_and_view() -> None:
    """No two of these share a noise stream, and all fit 32 bits."""
    keys = itertools.product(range(4), range(4), range(64))
    seeds = {view_seed(run, caption, view) for run, caption, view in keys}
    assert len(seeds) == 4 * 4 * 64
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_view_seed_is_the_documented_hash() -> None:
    """Any language can compute it: xxh3-64 of three little-endian 64-bit numbers, low half."""
    expected = xxhash.xxh3_64_intdigest(struct.pack("<QQQ", 1, 2, 3)) % 2**32
    assert view_seed(1, 2, 3) == expected


def test_digest_ignores_the_order_of_keys() -> None:
    """A digest names the value, not how a map was built."""
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
