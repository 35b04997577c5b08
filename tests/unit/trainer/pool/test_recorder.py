"""Groups go to the pool in the order in which they were trained on, and segments follow checkpoints."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.generation import GenerationSpec
from protocol.identity import caption_id
from trainer.batch import DrawnGroup
from trainer.captions import Captions
from trainer.config import PoolConfig, RunConfig, TrainerConfig
from trainer.plan import Plan
from trainer.pool.files import PoolFiles
from trainer.pool.images import decode_image
from trainer.pool.pool import open_pool
from trainer.pool.recorder import Recorder, open_recorder
from trainer.pool.writer import PoolWriter

SPEC = GenerationSpec(views=2, size=16)
PLAN = Plan(Captions([f"c{i}" for i in range(10)]), 0, SPEC)


def _group(group_id: int) -> DrawnGroup:
    images = np.random.default_rng(group_id).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    return DrawnGroup(
        ticket=PLAN.ticket(group_id),
        images_NHWC=images,
        source="online",
        worker="w",
        content="c",
        engine="e",
        digest="0" * 16,
        arrived_seconds=0.0,
    )


def _config(folder: Path, **run: Any) -> TrainerConfig:
    return TrainerConfig(run=RunConfig(**run), generation=SPEC, pool=PoolConfig(dir=str(folder), write=True))


def test_recorded_groups_are_there_bit_for_bit(tmp_path: Path) -> None:
    """As the views that they are: the second visit of a caption has numbers 2 and 3."""
    recorder = open_recorder(_config(tmp_path), PLAN, tmp_path / "run", 0)
    assert recorder is not None
    for group_id in range(20):
        recorder.add(_group(group_id), step=1)
    recorder.seal()
    recorder.close()
    pool, files = open_pool(tmp_path, max_damaged=0), PoolFiles(tmp_path)
    for group_id in range(20):
        ticket = PLAN.ticket(group_id)
        rows = pool.index.rows(ticket.caption_id, ticket.first_view, ticket.first_view + 2)
        images = [pool.index.image(row) for row in rows]
        decoded = np.stack([decode_image(files.read(image.place)) for image in images])
        assert np.array_equal(decoded, _group(group_id).images_NHWC)
        assert tuple(image.seed for image in images) == ticket.seeds
    files.close()


def test_a_resume_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    """Sealed at a checkpoint after step 5, and by size after it; what was not sealed is gone anyway."""
    config = _config(tmp_path)
    recorder = open_recorder(config, PLAN, tmp_path / "run", 0)
    assert recorder is not None
    recorder.add(_group(0), step=5)
    recorder.seal()
    recorder.add(_group(1), step=6)
    recorder.seal()
    recorder.add(_group(2), step=7)
    recorder.close()
    again = open_recorder(config, PLAN, tmp_path / "run", 5)
    assert again is not None
    again.close()
    index = open_pool(tmp_path, max_damaged=0).index
    assert {i: len(index.rows(PLAN.ticket(i).caption_id)) for i in range(3)} == {0: 2, 1: 0, 2: 0}


def test_only_an_online_run_that_was_told_to_records(tmp_path: Path) -> None:
    """Else not even the folder is made."""
    config = TrainerConfig(generation=SPEC, pool=PoolConfig(dir=str(tmp_path / "p")))
    assert open_recorder(config, PLAN, tmp_path / "run", 0) is None
    assert not (tmp_path / "p").exists()


def test_images_beyond_those_wanted_are_left_out(tmp_path: Path, about: Callable[..., Any]) -> None:
    """Three images a caption are one group and half of another; a segment is full after four images."""
    writer = PoolWriter(tmp_path, about())
    recorder = Recorder(writer, "webp", shard_images=4, below=3)
    for group_id in range(20):
        recorder.add(_group(group_id))
    recorder.seal()
    assert writer.groups == {i: 2 if i < 10 else 1 for i in range(20)}
    recorder.close()
    pool = open_pool(tmp_path, max_damaged=0)
    assert pool.index.images_by_caption() == {caption_id(f"c{i}"): 3 for i in range(10)}
    assert len(list(tmp_path.glob("*.tar"))) == 8


def test_an_error_of_the_encoding_comes_out(tmp_path: Path, about: Callable[..., Any]) -> None:
    """Not lost in its thread."""
    recorder = Recorder(PoolWriter(tmp_path, about()), "webp", shard_images=4)
    group = _group(0)

    def record() -> None:
        recorder.add(replace(group, images_NHWC=group.images_NHWC[:1, :, :, :1]))
        recorder.seal()

    with pytest.raises(TypeError):
        record()
    recorder.close()
