"""What `streamrep pool inspect` finds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.pool.contact_sheet import COLUMNS, MARGIN, TEXT_HEIGHT, TILE, write_contact_sheet
from trainer.pool.inspect import inspect, report
from trainer.pool.pool import open_pool


def test_a_whole_pool_is_counted(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """Captions, images, their sizes, and examples spread over the pool."""
    captions = [f"caption {i}" for i in range(40)]
    pool = open_pool(write_pool(tmp_path, captions), max_damaged=None)
    told: list[tuple[int, int]] = []
    found = inspect(pool, lambda done, total: told.append((done, total)))
    assert (found.segments, found.captions, found.images) == (2, 40, 160)
    assert found.images_per_caption == {4: 40}
    assert found.sizes == {(16, 16): 160}
    assert not found.damaged
    assert found.captions_shown == tuple(captions[::5])
    assert told[-1] == (160, 160)
    assert "160 of 16 x 16" in report(found)


def test_damage_is_named(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """Also many damaged ones end nothing here."""
    write_pool(tmp_path, ["a", "b"])
    (tmp_path / "shard-000001.tar").unlink()
    found = inspect(open_pool(tmp_path, max_damaged=None))
    assert found.damaged == {"missing": 4}
    assert len(found.examples) == 4
    assert sum(found.sizes.values()) == 4


def test_the_contact_sheet_shows_the_pictures(tmp_path: Path, write_pool: Callable[..., Path]) -> None:
    """A row a caption; the place of a lost picture stays white."""
    write_pool(tmp_path, ["a", "b"])
    (tmp_path / "shard-000001.tar").unlink()
    pool = open_pool(tmp_path, max_damaged=None)
    write_contact_sheet(pool, ["a", "b"], tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] == COLUMNS * (TILE + MARGIN) + MARGIN
    for line in range(2):
        top = MARGIN + line * (TEXT_HEIGHT + TILE + MARGIN) + TEXT_HEIGHT
        tiles = [sheet[top : top + TILE, MARGIN + i * (TILE + MARGIN) :][:, :TILE] for i in range(4)]
        assert [bool((tile < 255).any()) for tile in tiles] == [True, True, False, False]
