"""`streamrep pool` as it is typed: filled by workers, killed, gone on with, looked at."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generator_service.fake import draw_fake_group
from protocol.generation import GenerationSpec
from trainer.captions import Captions
from trainer.plan import Plan
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image
from trainer.pool.pool import open_pool

CAPTIONS = [f"caption number {i}" for i in range(30)]
IMAGES = 7


@pytest.fixture
def run(small_run: Callable[..., Any], tmp_path: Path) -> Any:
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(CAPTIONS), "utf-8")
    return small_run(
        captions__source=str(captions),
        pool__images_per_caption=IMAGES,
        pool__shard_images=30,
        generator__fake_images_per_second=120.0,
    )


def _assert_full(folder: Path) -> None:
    """Every image is the view that its number says, as the plan's tickets draw it."""
    plan = Plan(Captions(CAPTIONS), 0, GenerationSpec(views=3, size=32))
    pool, files = open_pool(folder, max_damaged=0), PoolFiles(folder)
    assert len(pool.index) == len(CAPTIONS) * IMAGES
    for group_id in range(0, 90, 7):
        ticket = plan.ticket(group_id)
        drawn = draw_fake_group(ticket, 32)
        for image, row in zip(drawn, pool.index.rows(ticket.caption_id, ticket.first_view), strict=False):
            assert (decode_image(files.read(pool.index.image(row).place)) == image).all()
    files.close()


@pytest.mark.timeout(600)
def test_a_killed_filling_goes_on_with_its_whole_segments(
    run: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    """Both processes of the command die by SIGKILL; the second time two workers draw what is missing."""
    folder = tmp_path / "pool"
    trainer = start("pool", str(run.path), "--out", str(folder), "--workers", "0")
    generator = start("generate", str(run.path))
    deadline = time.monotonic() + 200
    while len(list(folder.glob("*.tar"))) < 2:
        assert time.monotonic() < deadline
        assert trainer.poll() is None, trainer.communicate()[1]
        time.sleep(0.05)
    for process in (trainer, generator):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert 0 < len(open_pool(folder, max_damaged=0).index) < len(CAPTIONS) * IMAGES
    again = start("pool", str(run.path), "--out", str(folder), "--workers", "2")
    assert again.wait(300) == 0, again.communicate()[1]
    now = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")}
    assert kept.items() <= now.items()
    _assert_full(folder)
    # Full is full: nothing is drawn, and without a generator it ends at once.
    once_more = start("pool", str(run.path), "--out", str(folder), "--workers", "0")
    assert once_more.wait(120) == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*")} == now


@pytest.mark.timeout(600)
def test_a_pool_is_looked_at_and_grows(run: Any, start: Callable[..., Any], tmp_path: Path) -> None:
    """Another l goes on in the same folder: cut groups are drawn again for what they lacked."""
    folder = tmp_path / "pool"
    words = ["pool", str(run.path), "--out", str(folder), "--generator.fake_images_per_second", "0"]
    process = start(*words, "--pool.images_per_caption", "4")
    assert process.wait(200) == 0, process.communicate()[1]
    assert len(open_pool(folder, max_damaged=0).index) == 120
    process = start(*words)
    assert process.wait(200) == 0, process.communicate()[1]
    _assert_full(folder)
    (folder / "shard-000000.tar").unlink()
    looked = start("pool", "inspect", str(folder))
    out, _ = looked.communicate(timeout=60)
    assert looked.returncode == 0
    assert "210" in out
    assert "missing" in out
    assert (folder / "contact_sheet.png").read_bytes().startswith(b"\x89PNG")
