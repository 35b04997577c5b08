"""The cache of built engines: one build however many ask, nothing half-made, nothing of other people."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from generator_service.engine_cache import RECORD, EngineCache, read_engine
from generator_service.errors import DrawAbandonedError
from protocol.errors import UserError

RECIPE = {"engine": "compile", "weights": "w"}


def _build(folder: Path) -> None:
    (folder / "unet.pt2").write_bytes(b"code")


def _make_slowly(root: str, builds: str) -> None:
    def build(folder: Path) -> None:
        (Path(builds) / folder.name).touch()
        time.sleep(0.5)
        _build(folder)

    EngineCache(Path(root)).make(RECIPE, build, lambda: False)


def test_an_engine_is_built_once_and_found_again(tmp_path: Path) -> None:
    """By its recipe alone: another one is another engine."""
    cache = EngineCache(tmp_path / "engines")
    assert cache.find(RECIPE) is None
    folder, built = cache.make(RECIPE, _build, lambda: False)
    again, same = cache.make(RECIPE, lambda folder: pytest.fail("built twice"), lambda: False)
    assert (again, same) == (folder, built)
    assert cache.find(RECIPE) == folder
    assert cache.find(RECIPE | {"threads": 2}) is None
    assert built.recipe == RECIPE
    assert [folder for folder, _ in cache.engines()] == [folder]


def test_workers_that_start_at_once_build_once(tmp_path: Path) -> None:
    """Each process then has the same engine."""
    builds = tmp_path / "builds"
    builds.mkdir()
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_make_slowly, args=(str(tmp_path / "engines"), str(builds))) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list(builds.iterdir())) == 1


def test_a_failed_build_leaves_nothing_and_the_next_one_builds(tmp_path: Path) -> None:
    """Neither do the leavings of a process that was killed stand in for an engine."""
    cache = EngineCache(tmp_path / "engines")

    def fail(folder: Path) -> None:
        _build(folder)
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError, match="no compiler"):
        cache.make(RECIPE, fail, lambda: False)
    assert cache.find(RECIPE) is None
    folder, _ = cache.make(RECIPE, _build, lambda: False)
    left = cache.root / f".{folder.name}.1.part"
    left.mkdir()
    (left / RECORD).write_text("{}")
    assert len(cache.engines()) == 1
    assert cache.clean() == 1
    cache.make(RECIPE, _build, lambda: False)
    assert not left.exists()


def test_whoever_waits_for_a_build_can_leave(tmp_path: Path) -> None:
    """A stop is not held up by another process's compiler."""
    cache = EngineCache(tmp_path / "engines")

    def build(folder: Path) -> None:
        with pytest.raises(DrawAbandonedError):
            cache.make(RECIPE, _build, lambda: True)
        _build(folder)

    cache.make(RECIPE, build, lambda: False)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    """It is machine code; so is a cache that others can write to."""
    cache = EngineCache(tmp_path / "engines")
    folder, _ = cache.make(RECIPE, _build, lambda: False)
    (folder / "unet.pt2").write_bytes(b"evil")
    with pytest.raises(UserError, match=r"the engine is damaged: expected unet\.pt2 as it was built"):
        read_engine(folder)
    (folder / RECORD).write_text(json.dumps({"recipe": {}}))
    with pytest.raises(UserError, match="record is unreadable"):
        read_engine(folder)
    cache.root.chmod(0o777)
    with pytest.raises(UserError, match="a folder of this user that nobody else writes to"):
        cache.make({"engine": "other"}, _build, lambda: False)


def test_engines_are_removed_by_name(tmp_path: Path) -> None:
    """Those asked for, or all."""
    cache = EngineCache(tmp_path / "engines")
    one, _ = cache.make(RECIPE, _build, lambda: False)
    two, _ = cache.make(RECIPE | {"threads": 2}, _build, lambda: False)
    assert cache.clean([one.name]) == 1
    assert [folder for folder, _ in cache.engines()] == [two]
    assert cache.clean() == 1
    assert cache.engines() == []
