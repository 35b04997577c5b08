"""docs/operations.md is complete and current."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.plan import plan


@pytest.fixture(scope="module")
def guide(repository: Path) -> str:
    return (repository / "docs" / "operations.md").read_text("utf-8")


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_has_its_section(repository: Path, guide: str) -> None:
    """Where the alert itself points to, and no section is left of one that is gone."""
    groups = yaml.safe_load((repository / "monitoring" / "alerts.yml").read_text("utf-8"))["groups"]
    rules: list[dict[str, Any]] = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    written = re.findall(r"^### (Streamrep\w+)$", guide, re.MULTILINE)
    assert written == [rule["alert"] for rule in rules]


def test_links_within_the_page_lead_somewhere(guide: str) -> None:
    """The contents at its top, and every other."""
    links = re.findall(r"\]\(#([^)]+)\)", guide)
    assert len(links) > 5
    assert set(links) <= anchors(guide)


def test_every_shown_plan_is_what_the_command_prints(guide: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers in the guide come from a command."""
    shown = re.findall(r"^```\n\$ (streamrep plan .+)\n((?:.+\n)+)```$", guide, re.MULTILINE)
    assert len(shown) == 3
    for command, output in shown:
        assert plan(shlex.split(command)[2:]) == 0
        assert capsys.readouterr().out == output, f"mend it with the output of `{command}`"
