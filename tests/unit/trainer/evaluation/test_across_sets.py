"""The means over sets: of which score, over which sets, of which encoder."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.evaluation.across_sets import across_sets, judged_sets, lines_of, save_across
from trainer.evaluation.result import Found, Result, save_found


def judged(folder: Path, data: str, *results: Result, digest: str = "e") -> None:
    (folder / data).mkdir(parents=True)
    found = Found(
        encoder="runs/r/encoder",
        encoder_digest=digest,
        data=data,
        data_digest="d",
        pictures={"test": 3},
        classes=2,
        results=list(results),
    )
    save_found(folder / data / "results.json", found)


def linear(scores: dict[str, float], **settings: Any) -> Result:
    return Result(kind="linear", variant="clean", scores=scores, settings=settings)


def test_each_set_counts_by_the_score_that_was_chosen_by(tmp_path: Path) -> None:
    """Accuracy on one, its mean over classes on another, average precision on the third."""
    judged(tmp_path, "cars", linear({"accuracy": 0.5, "mean_class": 0.4}, chosen_by="accuracy"))
    judged(tmp_path, "pets", linear({"accuracy": 0.9, "mean_class": 0.8}, chosen_by="mean_class"))
    judged(tmp_path, "voc", linear({"map_11_point": 0.7, "map_area": 0.6}, chosen_by="map_11_point"))
    found = across_sets(judged_sets(tmp_path, "e"))
    assert found.sets == ["cars", "pets", "voc"]
    [row] = found.rows
    assert row.by_set == {"cars": 0.5, "pets": 0.8, "voc": 0.7}
    assert row.mean == pytest.approx(2 / 3)
    assert lines_of(found) == "  linear (clean)  cars 50.0%  pets 80.0%  voc 70.0%  mean 66.7%"
    save_across(tmp_path, found)
    assert json.loads((tmp_path / "sets.json").read_text("utf-8"))["rows"][0]["by_set"] == row.by_set


def test_a_kind_that_a_set_lacks_has_no_mean(tmp_path: Path) -> None:
    """Nor do other encoders' sets, or files that are none, count."""
    knn = Result(kind="knn", scores={"accuracy": 0.25})
    judged(tmp_path, "a", linear({"accuracy": 0.5}), knn)
    judged(tmp_path, "b", linear({"accuracy": 0.7}))
    judged(tmp_path, "c", linear({"accuracy": 0.1}), digest="another")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "results.json").write_text("{")
    found = across_sets(judged_sets(tmp_path, "e"))
    assert found.sets == ["a", "b"]
    assert {row.name: row.mean for row in found.rows} == {"linear (clean)": pytest.approx(0.6), "knn": None}
    assert lines_of(found).splitlines()[1] == "  knn             a 25.0%"
