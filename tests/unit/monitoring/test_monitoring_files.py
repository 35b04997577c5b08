"""Alert rules and dashboard name only what is exported, and the guide knows every alert."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from generator_service.conversation import WorkerFacts
from generator_service.link_status import LinkStatus
from generator_service.pages import families as generator_families
from generator_service.tally import Tally
from monitoring.exposition import render
from trainer.feed.feed import FeedStatus
from trainer.monitor.families import PEER_REASONS
from trainer.monitor.families import families as trainer_families
from trainer.monitor.reading import Reading
from trainer.stall import Want
from trainer.stall_watch import Standstill

NAME = re.compile(r"\bstreamrep_(?:trainer|generator)_[a-z_]+\b")
SELECTOR = re.compile(r"\b(streamrep_(?:trainer|generator)_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
SCRAPED_LABELS = {"job", "instance"}
"""Given to every series by Prometheus."""


@pytest.fixture(scope="module")
def page() -> str:
    """/metrics of a trainer that has done everything once, and of a generator."""
    row = dict.fromkeys(
        ("lr", "images_per_second", "fresh_fraction", "mean_uses", "ring_groups", "reuse"), 1.0
    )
    reading = Reading(
        run="r",
        endpoint="tcp://x",
        views=2,
        max_steps=9,
        first_step=0,
        first_uses=0,
        row={"step": 1, "time": 1.0, "loss": 1.0, "images_trained": 1, **row},
        status=FeedStatus(
            workers=1, groups_received=1, buffered=0, leased=0, wanted=0, dead_letters=0, refused={}
        ),
        standstill=Standstill(want=Want(step=1, needed=0, fresh=0)),
        checkpoint_at=1.0,
        disk_free_bytes=1,
        disk_size_bytes=2,
    )
    facts = WorkerFacts(worker="w", device="cpu", weights="d")
    return render([*trainer_families(reading), *generator_families(facts, LinkStatus(), Tally().drawn())])


@pytest.fixture(scope="module")
def exported(page: str, parse_exposition: Callable[[str], dict[str, Any]]) -> dict[str, set[str]]:
    """Labels of every series name that a scrape finds."""
    found: dict[str, set[str]] = {}
    for name, family in parse_exposition(page).items():
        assert family.samples, f"{name} has no sample: the reading lacks something"
        for series, labels in family.samples:
            found.setdefault(series, set()).update(label for label, _ in labels)
    return found


@pytest.fixture(scope="module")
def rules(repository: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((repository / "monitoring" / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def dashboard(repository: Path) -> dict[str, Any]:
    path = repository / "monitoring" / "grafana" / "dashboards" / "streamrep.json"
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    """All PromQL of the panels, and the metric of each variable."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"label_values\((\w+), \w+\)", r"\1", variable["definition"])


def check(expression: str, exported: dict[str, set[str]]) -> int:
    """How many metrics it names; each must be exported, with every label that is asked of it."""
    names = NAME.findall(re.sub(r'"[^"]*"', '""', expression))
    for name in names:
        assert name in exported, f"{name} is not exported: {expression}"
    for name, matchers in SELECTOR.findall(expression):
        for label, _, _ in MATCHER.findall(matchers):
            assert label in exported[name] | SCRAPED_LABELS, f"{name} has no label {label}"
    return len(names)


def test_every_metric_of_the_rules_is_exported(
    rules: list[dict[str, Any]], exported: dict[str, set[str]]
) -> None:
    """A renamed metric can't leave an alert that never comes. `up` is Prometheus' own."""
    for rule in rules:
        assert check(rule["expr"], exported) or rule["expr"].startswith("up{")


def test_every_metric_of_the_dashboard_is_exported(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    """And each panel shows one at least."""
    found = list(queries(dashboard))
    assert len(found) > 20
    for expression in found:
        assert check(expression, exported)


def test_legends_and_groupings_name_labels_that_are_there(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    """Otherwise Grafana shows an empty legend."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            names = NAME.findall(target["expr"])
            labels = set.union(*(exported[name] for name in names)) | SCRAPED_LABELS
            used = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            used += re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"])))
            assert set(used) <= labels, panel["title"]


def test_the_search_finds_names_that_are_not_exported(exported: dict[str, set[str]]) -> None:
    """The checks above can fail."""
    for wrong in (
        "rate(streamrep_trainer_nonsense_total[5m]) > 0",
        'streamrep_trainer_loss{reason="x"}',
        "streamrep_generator_batch_seconds > 1",
    ):
        with pytest.raises(AssertionError):
            check(wrong, exported)


def test_rejected_peers_are_the_refusals_of_peers(rules: list[dict[str, Any]]) -> None:
    """The rule's pattern takes all of them and nothing that merely happens, as a duplicate does."""
    [expression] = [rule["expr"] for rule in rules if rule["alert"] == "StreamrepPeersRejected"]
    [pattern] = re.findall(r'reason=~"([^"]+)"', expression)
    assert all(re.fullmatch(pattern, reason) for reason in PEER_REASONS)
    for other in ("duplicate", "unwanted", "lease_expired", "unknown_peer", "header", "silent_worker"):
        assert not re.fullmatch(pattern, other)


def test_panels_do_not_overlap(dashboard: dict[str, Any]) -> None:
    """On Grafana's grid of 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_guide_lists_every_metric_with_its_labels_and_meaning(
    page: str, repository: Path, parse_exposition: Callable[[str], dict[str, Any]]
) -> None:
    """In the order of the page."""
    rows = []
    for name, family in parse_exposition(page).items():
        labels = sorted({label for _, pairs in family.samples for label, _ in pairs} - {"le"})
        rows.append(f"| `{name}` | {', '.join(labels)} | {family.help} |")
    guide = (repository / "docs" / "operations.md").read_text("utf-8")
    written = [line for line in guide.splitlines() if line.startswith("| `streamrep_")]
    assert written == rows


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian's package prometheus) is not installed")
@pytest.mark.parametrize(
    "words",
    [
        ["check", "rules", "monitoring/alerts.yml"],
        ["check", "config", "monitoring/prometheus.yml"],
        ["test", "rules", "tests/unit/monitoring/alerts_test.yml"],
    ],
)
def test_promtool_takes_rules_and_configuration(repository: Path, words: list[str]) -> None:
    """Each alert comes where it must, and not where nothing is wrong."""
    assert PROMTOOL
    done = subprocess.run(
        [PROMTOOL, *words], cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian's package prometheus) is not installed")
def test_promtool_takes_the_page_and_the_dashboards_queries(
    page: str, dashboard: dict[str, Any], tmp_path: Path
) -> None:
    """The page without a word of reproach; the queries as recording rules, which hold their syntax."""
    assert PROMTOOL
    lint = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert (lint.returncode, lint.stdout + lint.stderr) == (0, "")
    records = [
        {
            "record": f"query_{index}",
            "expr": expression.replace("$__rate_interval", "5m").replace("$trainer", ".*"),
        }
        for index, expression in enumerate(queries(dashboard))
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}), "utf-8")
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
