"""Damage is counted once a name, and stops beyond its limit."""

from pathlib import Path

import pytest

from trainer.errors import PoolDamagedError
from trainer.pool.damage import Damage


def test_a_name_counts_once_and_the_limit_is_kept() -> None:
    """At the limit all is well; the next one stops, and says what there was."""
    damage = Damage(Path("p"), 2)
    for _ in range(3):
        damage.count("a.webp", "missing")
    damage.count("b.webp", "truncated", "3 of 5 bytes")
    assert len(damage) == 2
    with pytest.raises(PoolDamagedError, match=r"max_damaged = 2 .* got 3 \(2 missing, 1 truncated\)"):
        damage.count("c.webp", "missing")


def test_without_a_limit_everything_is_counted() -> None:
    """The first few are kept by name."""
    damage = Damage(Path("p"), None)
    for i in range(500):
        damage.count(f"{i}", "missing")
    assert damage.reasons == {"missing": 500}
    assert len(damage.examples) == 8


def test_no_damage_allowed_stops_at_the_first() -> None:
    """A limit of 0."""
    with pytest.raises(PoolDamagedError):
        Damage(Path("p"), 0).count("a", "missing")
