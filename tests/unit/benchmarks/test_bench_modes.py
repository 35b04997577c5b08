"""The benchmark of pools, fresh streams and replay: which images are served, and what comes of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.arms import Arm, arms_of, served
from benchmarks.modes import main
from benchmarks.modes_run import batch
from benchmarks.student import interval
from benchmarks.superset import Superset
from protocol.generation import GenerationSpec
from protocol.tickets import Ticket
from trainer.captions import Captions
from trainer.plan import Plan

PLAN = Plan(Captions(["a", "b", "c"]), 7, GenerationSpec(views=3, guidance=(1.0,)))


def tickets_of(caption: str, visits: int) -> list[Ticket]:
    """The caption's tickets, visit by visit."""
    return [t for group in range(3 * visits) if (t := PLAN.ticket(group)).caption == caption]


def test_fresh_images_are_never_served_twice() -> None:
    """40 visits of 3 views take 120 images, each once, in order."""
    arm = Arm(name="fresh", kind="fresh", visits=40)
    numbers = [n for ticket in tickets_of("b", 40) for n in served(arm, ticket, 7)]
    assert numbers == list(range(120))
    assert arm.images_drawn(3) == 120


def test_a_replayed_group_serves_its_number_of_visits_in_a_row() -> None:
    """Four visits a group: 30 of the 120 images, each of them four times."""
    arm = Arm(name="replay", kind="replay", visits=40, reuse=4)
    visits = [served(arm, ticket, 7) for ticket in tickets_of("a", 40)]
    assert visits[:4] == [[0, 1, 2]] * 4
    assert visits[4:8] == [[3, 4, 5]] * 4
    assert {n for numbers in visits for n in numbers} == set(range(30))
    assert arm.images_drawn(3) == 30


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_a_pool_serves_its_images_about_equally_often(count: int) -> None:
    """Without repetition in a group where there are enough, else each as often as any other within one."""
    arm = Arm(name="pool", kind="pool", visits=400, pool_images=count)
    visits = [served(arm, ticket, 7) for ticket in tickets_of("c", 400)]
    for numbers in visits:
        uses = [numbers.count(n) for n in range(count)]
        assert sum(uses) == 3
        assert max(uses) - min(uses) <= 1
    totals = [sum(numbers.count(n) for numbers in visits) for n in range(count)]
    assert max(totals) - min(totals) < 0.3 * 1200 / count
    assert arm.images_drawn(3) == count


def test_short_fresh_arms_draw_what_the_largest_pool_and_the_replay_draw() -> None:
    """In whole visits: 12 images for a pool of 10, 30 for the replay of 40 visits with 4 uses."""
    arms = arms_of(40, (1, 2, 4, 10), 4, 3)
    assert [(a.name, a.visits) for a in arms[-2:]] == [("fresh, 12 images", 4), ("fresh, 30 images", 10)]
    assert {a.visits for a in arms[:-2]} == {40}


def test_an_interval_is_students() -> None:
    """Five values: 2.776 standard errors, by the table in any book; one value has none."""
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3
    assert half == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    assert math.isnan(interval([1.0])[1])


def test_arms_of_a_seed_differ_in_images_alone() -> None:
    """Same captions, views and augmentation keys in a batch; the pool's images are among the first two."""
    images = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    superset = Superset(
        captions=PLAN.captions,
        images=dict.fromkeys(PLAN.captions.ids, images),
        digest="",
        fill_seconds=1.0,
        picture_bytes=1.0,
    )
    pool = batch(PLAN, superset, Arm(name="pool", kind="pool", visits=4, pool_images=2), 2, 4)
    fresh = batch(PLAN, superset, Arm(name="fresh", kind="fresh", visits=4), 2, 4)
    assert pool.keys(7) == fresh.keys(7)
    assert pool.caption_ids().tolist() == fresh.caption_ids().tolist()
    assert set(pool.images_NHWC().flatten().tolist()) == {0, 1}
    assert [g.images_NHWC[0, 0, 0, 0] // 3 for g in fresh.groups] == [1, 1, 2, 2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_draws_trains_and_goes_on_where_it_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A small one: every arm and seed once; the second call trains nothing and says the same."""
    words = ["--captions", "20", "--visits", "4", "--seeds", "2", "--folder", str(tmp_path / "work")]
    words += ["--out", str(tmp_path / "modes.json"), "--picture", str(tmp_path / "modes.svg")]
    words += ["--train.batch_groups", "8", "--processes", "2"]
    assert main(words) == 0
    first = json.loads((tmp_path / "modes.json").read_text())
    runs = len((tmp_path / "work" / "runs.jsonl").read_text().split())
    capfd.readouterr()
    assert main(words) == 0
    assert "1 of" not in capfd.readouterr().err
    second = json.loads((tmp_path / "modes.json").read_text())
    assert first["runs"] == second["runs"]
    assert len((tmp_path / "work" / "runs.jsonl").read_text().split()) == runs
    drawn = {row["arm"]: row["images_drawn"] for row in first["runs"]}
    assert drawn["pool, l = 4"] == 80
    assert drawn["fresh"] == 240
    assert (tmp_path / "modes.svg").read_text().startswith("<svg")
