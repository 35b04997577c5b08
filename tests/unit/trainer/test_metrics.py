"""metrics.jsonl and the meter behind it."""

import json
from pathlib import Path

import numpy as np
import pytest

from protocol.generation import GenerationSpec
from trainer.batch import Batch, DrawnGroup
from trainer.captions import Captions
from trainer.feed.feed import FeedStatus
from trainer.metrics import Meter, MetricsLog
from trainer.plan import Plan

PLAN = Plan(Captions(["a", "b", "c"]), 5, GenerationSpec(views=2, size=8))


def _batch(step: int, uses: tuple[int, ...]) -> Batch:
    group = DrawnGroup(
        ticket=PLAN.ticket(0),
        images_NHWC=np.zeros((2, 8, 8, 3), np.uint8),
        source="online",
        worker="w",
        content="c",
        engine="e",
        digest="0" * 16,
        arrived_seconds=0.0,
    )
    return Batch(step=step, groups=(group,) * len(uses), uses=uses)


def _status(groups: int) -> FeedStatus:
    return FeedStatus(
        workers=1, groups_received=groups, buffered=2, leased=3, wanted=4, dead_letters=0, refused={}
    )


def test_a_resume_drops_rows_of_lost_steps_and_half_a_line(tmp_path: Path) -> None:
    """Rows after the checkpoint belong to weights that are gone."""
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step}) for step in (10, 20, 30)]
    path.write_text("\n".join(rows) + '\n{"step": 4')
    log = MetricsLog(path, resumed_step=20)
    log.append({"step": 21})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 21]


def test_rates_are_of_the_interval_and_totals_of_the_run() -> None:
    """Two steps of 4 groups x 2 views in 4 seconds, one of them waited, then a second interval."""
    now = [100.0]
    meter = Meter(groups_trained=10, uses=20, images_received=30, clock=lambda: now[0])
    meter.count(_batch(1, (1, 1, 2, 3)), wait_seconds=0.5, train_seconds=1.0)
    meter.count(_batch(2, (1, 2, 2, 3)), wait_seconds=0.5, train_seconds=2.0)
    now[0] += 4.0
    row = meter.row(2, _status(6))
    assert row["images_trained"] == (20 + 8) * 2
    assert row["images_received"] == 30 + 12
    assert row["images_per_second"] == pytest.approx(16 / 4)
    assert row["generated_per_second"] == pytest.approx(12 / 4)
    assert row["fresh_fraction"] == pytest.approx(3 / 8)
    assert row["mean_uses"] == pytest.approx(28 / 13)
    assert row["waiting_share"] == pytest.approx(1.0 / 4.0)
    assert row["step_seconds"] == pytest.approx(1.5)
    assert row["uses"] == {"1": 3, "2": 3, "4": 2}
    assert row["age_seconds"] == {"100": 8}
    meter.restart()
    now[0] += 1.0
    row = meter.row(2, _status(7))
    assert row["images_per_second"] == 0.0
    assert row["generated_per_second"] == pytest.approx(2.0)
    assert row["wait_seconds"] == pytest.approx(1.0)


def test_time_spent_on_evaluation_is_not_training_time() -> None:
    """A pause lowers no rate of training, but generation goes on in it."""
    now = [0.0]
    meter = Meter(clock=lambda: now[0])
    meter.count(_batch(1, (1, 1)), wait_seconds=0.0, train_seconds=1.0)
    meter.pause(3.0)
    now[0] = 4.0
    row = meter.row(2, _status(4))
    assert row["images_per_second"] == pytest.approx(4.0)
    assert row["generated_per_second"] == pytest.approx(2.0)
