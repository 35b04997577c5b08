"""`streamrep plan`: figures of the paper, the rules between its figures, and what it refuses."""

import json
import math
from typing import Any

import pytest

from launcher.main import main
from launcher.sizing import Fleet, Schedule, size_fresh, size_pool


@pytest.fixture
def reckon(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with --json and reads what it prints."""

    def run(*words: str) -> dict[str, Any]:
        assert main(["plan", *words, "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_the_papers_schedule_without_repeats(reckon: Any) -> None:
    """StableRep's 1x on CC12M is 900 million images: 417 H100 hours at 600 a second."""
    found = reckon("--generator-rate", "600")
    assert found["images_trained"] == found["images_generated"] == 900_000_000
    assert round(found["generator_gpu_hours"]) == 417
    assert found["mean_uses"] == 1
    assert found["steps"] == math.ceil(10_000_000 * 15 / 1376)


def test_the_papers_pool(reckon: Any) -> None:
    """10 images a caption at 0.8 s an image on an A100, each used 9 times, 196,608 bytes uncompressed."""
    found = reckon("--generator-rate", "1.25", "--pool", "10")
    assert found["images_generated"] == 100_000_000
    assert found["images_trained"] == 900_000_000
    assert found["mean_uses"] == 9
    assert round(found["generator_gpu_hours"]) == 22_222
    assert found["disk_bytes"] == 100_000_000 * 256 * 256 * 3
    assert (found["wall_hours"], found["stream_bytes"]) == (None, None)


def test_one_batch_of_the_paper(reckon: Any) -> None:
    """8,256 images are 6,605 A100 seconds."""
    found = reckon("--generator-rate", "1.25", "--captions", "1376", "--epochs", "1")
    assert found["steps"] == 1
    assert round(found["generator_gpu_hours"] * 3600) == 6605


@pytest.mark.parametrize("reuse", [1, 3, 7])
@pytest.mark.parametrize("generators", [None, 1, 2, 50])
def test_fresh_training_against_a_plain_simulation(reuse: int, generators: int | None) -> None:
    """Second by second: what generators draw feeds a trainer that may use each group so many times."""
    schedule = Schedule(captions=500, epochs=2, views=4, batch_groups=16, size=8, max_reuse=reuse)
    fleet = Fleet(generator_rate=5.0, trainer_rate=23.0, generator_gpus=generators, trainer_gpus=2)
    sizing = size_fresh(schedule, fleet)
    step = 0.01
    drawn = trained = seconds = waited = 0.0
    while trained < sizing.images_trained:
        drawn = min(drawn + sizing.generator_gpus * 5.0 * step, sizing.images_generated)
        could = 2 * 23.0 * step
        done = min(could, drawn * reuse - trained)
        trained += done
        waited += step * (1 - done / could)
        seconds += step
        if drawn == sizing.images_generated and done <= 0:
            break
    assert sizing.wall_hours == pytest.approx(seconds / 3600, rel=0.02)
    assert sizing.waiting_share == pytest.approx(waited / seconds, abs=0.02)
    assert sizing.images_generated == math.ceil(1000 / reuse) * 4
    assert sizing.stream_bytes == sizing.images_generated * 8 * 8 * 3
    if generators is None:
        assert sizing.waiting_share == pytest.approx(0, abs=0.01)
        fewer = size_fresh(schedule, Fleet(**{**_fields(fleet), "generator_gpus": sizing.generator_gpus - 1}))
        assert fewer.waiting_share is not None
        assert fewer.waiting_share > 0


def _fields(fleet: Fleet) -> dict[str, Any]:
    return {name: getattr(fleet, name) for name in fleet.__dataclass_fields__}


def test_whole_quotients_need_no_generator_more() -> None:
    """1,800 images a second from generators of 600 are three, whatever floating point makes of it."""
    schedule = Schedule(captions=10, epochs=1, views=2, batch_groups=2, size=8)
    assert size_fresh(schedule, Fleet(generator_rate=0.1, trainer_rate=0.3)).generator_gpus == 3
    assert size_fresh(schedule, Fleet(generator_rate=600, trainer_rate=1801)).generator_gpus == 4


def test_a_pool_is_filled_before_it_is_trained_on() -> None:
    """Its hours add up, and its pictures take what was measured."""
    schedule = Schedule(captions=3600, epochs=10, views=2, batch_groups=4, size=8)
    fleet = Fleet(generator_rate=2.0, trainer_rate=20.0, generator_gpus=3, trainer_gpus=2)
    sizing = size_pool(schedule, fleet, images_per_caption=6, picture_bytes=100.5)
    assert sizing.fill_hours == pytest.approx(3600 * 6 / 2 / 3 / 3600)
    assert sizing.wall_hours == pytest.approx(1.0 + 3600 * 20 / 20 / 2 / 3600)
    assert sizing.disk_bytes == math.ceil(3600 * 6 * 100.5)
    assert sizing.mean_uses == pytest.approx(10 / 3)


def test_memory_is_window_and_ring(reckon: Any) -> None:
    """4 batches that wait, and 16 more where groups are used again."""
    batch_bytes = 8 * 6 * 256 * 256 * 3
    assert reckon("--generator-rate", "1", "--batch-groups", "8")["memory_bytes"] == 4 * batch_bytes
    again = reckon("--generator-rate", "1", "--batch-groups", "8", "--max-reuse", "2")
    assert again["memory_bytes"] == 20 * batch_bytes


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--generator-rate"),
        (["--generator-rate", "0"], "expected a number above 0, got 0"),
        (["--generator-rate", "fast"], "expected a number above 0, got fast"),
        (["--generator-rate", "nan"], "expected a number above 0, got nan"),
        (["--generator-rate", "1", "--captions", "1.5"], "expected a whole number, got 1.5"),
        (["--generator-rate", "1", "--epochs", "inf"], "expected a number above 0, got inf"),
        (["--generator-rate", "1", "--pool", "5"], "at least 6 images a caption"),
        (["--generator-rate", "1", "--pool", "10", "--max-reuse", "2"], "not with a pool"),
        (["--generator-rate", "1", "more"], "more"),
    ],
)
def test_what_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with code 2."""
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


def test_the_table_leaves_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    """Two columns, plain words, powers of a thousand."""
    assert main(["plan", "--generator-rate", "600", "--captions", "10e6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = dict(line.strip().split("  ", 1) for line in lines)
    assert cells["images trained"].strip() == "900,000,000"
    assert cells["bytes streamed"].strip() == "177 TB"
    assert "trainer GPU hours" not in cells
