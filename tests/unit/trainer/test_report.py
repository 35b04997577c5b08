"""The report: what it holds, what it escapes, and that it stands alone."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainer.charts import POINTS_MAX, chart_svg, nice_ticks
from trainer.report import write_report

HOSTILE = "<script>alert(\"x\")</script> & 'quotes'"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects text and tags, and refuses tags that don't nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def make_run(folder: Path) -> bytes:
    """A finished run with hostile text wherever text can stand. Returns the PNG of its one strip."""
    resolved: dict[str, Any] = {"run": {"name": HOSTILE, "max_steps": 30}, "captions": {"source": HOSTILE}}
    (folder / "run.json").write_text(json.dumps(resolved), "utf-8")
    rows: list[dict[str, Any]] = [{"step": step, "loss": 5 - step / 10, "lr": 1e-4} for step in (10, 20, 30)]
    rows[1]["recall_at_10"] = 0.25
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    evaluation = {"untrained": {"recall_at_10": 0.03}, "trained": {"recall_at_10": 0.271, "step": 30}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation), "utf-8")
    (folder / "summary.json").write_text(json.dumps({"images_generated": 12345, "mean_uses": 3.5}), "utf-8")
    samples = folder / "samples"
    samples.mkdir()
    Image.fromarray(np.zeros((4, 12, 3), np.uint8)).save(samples / "7.png")
    index = [
        {"group_id": 7, "caption": HOSTILE, "uses": 1, "step": 30},
        {"group_id": 8, "caption": "its strip has gone", "uses": 1, "step": 30},
    ]
    (samples / "index.json").write_text(json.dumps(index), "utf-8")
    return (samples / "7.png").read_bytes()


def test_report_holds_numbers_tables_and_images_of_the_run(tmp_path: Path) -> None:
    """Read back from the page, images bit for bit."""
    png = make_run(tmp_path)
    path = write_report(tmp_path)
    page = Page(path.read_text("utf-8"))
    for text in ("12,345", "3.50", "27.1%", "finished at step 30 of 30", "group 7, step 30, 1 use", HOSTILE):
        assert text in page.text
    (image,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert base64.b64decode((image["src"] or "").removeprefix("data:image/png;base64,")) == png
    assert image["alt"] == HOSTILE
    assert sum(tag == "svg" for tag, _ in page.tags) == 3
    assert "its strip has gone" not in page.text


def test_report_stands_alone_and_runs_nothing(tmp_path: Path) -> None:
    """No script, no request, whatever captions say."""
    make_run(tmp_path)
    html = write_report(tmp_path).read_text("utf-8")
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "base"}
    addresses = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert all((value or "").startswith("data:image/png;base64,") for value in addresses)
    assert "url(" not in html
    assert "@import" not in html


def test_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """By rename over the older one, with nothing left beside it."""
    make_run(tmp_path)
    (tmp_path / "report.html").write_text("old", "utf-8")
    before = set(tmp_path.iterdir())
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert set(tmp_path.iterdir()) == before
    assert (tmp_path / "report.html").read_text("utf-8").endswith("</html>\n")


def test_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    """Without metrics, evaluation, samples and summary."""
    (tmp_path / "run.json").write_text('{"run": {"name": "new", "max_steps": 9}}', "utf-8")
    text = Page(write_report(tmp_path).read_text("utf-8")).text
    assert "under way at step 0 of 9" in text
    assert "No metrics yet." in text
    assert "Not evaluated yet." in text


def test_half_written_row_is_left_out(tmp_path: Path) -> None:
    """The trainer may be writing it just now."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "loss": 1.0}\n{"step": 10, "lo', "utf-8")
    assert "under way at step 5" in Page(write_report(tmp_path).read_text("utf-8")).text


def test_chart_draws_points_where_their_values_say() -> None:
    """The axis labels' own positions give the scale that the points are held to."""
    points = [(0.0, 1.0), (50.0, 3.0), (100.0, 2.0)]
    svg = ElementTree.fromstring(chart_svg({"a": points}))
    texts = [(float(node.get("x", "")), float(node.get("y", "")), node.text) for node in svg.iter("text")]
    columns = {float(text): x for x, _, text in texts if text in ("0", "100")}
    rows = {float(text): y - 4 for x, y, text in texts if text in ("1.0", "3.0")}
    line = svg.find("polyline")
    assert line is not None
    drawn = [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
    for (x, y), (column, row) in zip(points, drawn, strict=True):
        assert column == pytest.approx(columns[0] + x / 100 * (columns[100] - columns[0]), abs=0.2)
        assert row == pytest.approx(rows[1] + (y - 1) / 2 * (rows[3] - rows[1]), abs=0.2)


def test_chart_leaves_out_what_is_not_finite() -> None:
    """A loss that exploded must not empty the chart."""
    svg = chart_svg({"a": [(0, 1), (1, float("nan")), (2, float("inf")), (3, 2)], "b": [(0, float("nan"))]})
    assert svg.count("<circle") == 2
    assert "nan" not in svg
    assert "No values" in chart_svg({"a": [(0.0, float("nan"))]})


def test_chart_of_one_point_and_of_equal_values_is_drawn() -> None:
    """Neither axis has a length of its own then."""
    for points in ([(5.0, 0.0)], [(0.0, 7.0), (10.0, 7.0)]):
        svg = chart_svg({"a": points})
        assert svg.count("<circle") == len(points)
        assert "nan" not in svg


def test_long_series_are_thinned_with_their_last_point_kept() -> None:
    """A report of a long run stays small."""
    svg = chart_svg({"a": [(float(step), float(step)) for step in range(10_001)]})
    assert svg.count("<circle") <= POINTS_MAX + 1
    assert "at step 10,000" in svg


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_cover_the_range(low: float, length: float) -> None:
    """Steps of 1, 2 or 5 times a power of ten."""
    high = low + length
    ticks = nice_ticks(low, high)
    step = ticks[1] - ticks[0]
    slack = step * 1e-3
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert ticks[0] > low - step - slack
    assert float(f"{step:.0e}") == pytest.approx(step, rel=1e-3)
    assert f"{step:.0e}"[0] in "125"


def test_a_run_in_ticket_order_says_that_its_losses_repeat(tmp_path: Path) -> None:
    """In arrival order they don't, and the page says that."""
    (tmp_path / "run.json").write_text(json.dumps({"stream": {"order": "ticket"}}))
    assert "the losses repeat as well" in write_report(tmp_path).read_text("utf-8")
    (tmp_path / "run.json").write_text(json.dumps({"stream": {}}))
    assert "depends on when they arrive" in write_report(tmp_path).read_text("utf-8")
