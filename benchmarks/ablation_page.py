"""docs/ablations.md, from the results of `bench ablation` that are there."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ablation_table import claims_table, table
from benchmarks.intervals import write_intervals
from benchmarks.modes_table import CHANCES

Result = dict[str, Any]

_HEAD = """# Ablations

The paper's ablations on the embedded model, each one command: `streamrep bench ablation NAME`, or `all`.
This page is written by that command from `{results}/ablation_*.json`, which also name the machine.

Everything is small: pictures of 64 pixels by the embedded model, a small encoder, a minute of training.
What is judged is how often an OpenMoji drawing finds its name among the ten nearest drawings of three other
styles (R@10), on white and with every drawing on a background of its own. All arms of a seed start from the
same weights where they have the same layers, and train on as many images, in batches of one size, where
their table does not say otherwise. ± is a 95% interval (Student's t, over seeds); differences are paired by
seed. Images drawn and trained are counted over all captions, and of the augmentations that SimCLR sees of
an image each is one trained. "Real drawings" is the same learner on the drawings, of the same captions,
that the generator was trained on, placed at random and none twice.

A direction of the paper is a difference between arms. It **agrees** where the whole 95% interval of that
difference lies on the paper's side of zero, **disagrees** where it lies on the other, and is **not shown**
where the interval holds zero."""


def read_results(folder: Path, names: Sequence[str]) -> dict[str, Result]:
    """By name, in the order of `names`, of those that have been run."""
    paths = {name: folder / f"ablation_{name}.json" for name in names}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}


def write_page(docs: Path, results_folder: Path, results: dict[str, Result]) -> Path:
    """The page and a plot for each result, in `docs` and its images/; returns the page's path."""
    parts = [
        _HEAD.format(results=os.path.relpath(results_folder, docs.parent)),
        "## In short",
        _summary(results),
    ]
    for name, result in results.items():
        picture = docs / "images" / f"ablation_{name}.svg"
        write_intervals(picture, _entries(result), CHANCES)
        parts += [
            f"## {result['question']}",
            f"`streamrep bench ablation {name}`. {result['about']}",
            _size(result),
        ]
        for part in result["parts"]:
            parts += [f"{part['title']}:" if part["title"] else "", table(part)]
        parts += [f"![R@10 of each arm]({os.path.relpath(picture, docs)})", claims_table(result["claims"])]
    path = docs / "ablations.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def _entries(result: Result) -> list[Result]:
    """Every arm once, those beside the tables last."""
    entries = {entry["arm"]: entry for part in result["parts"] for entry in part["arms"]}
    return sorted(entries.values(), key=lambda entry: entry["kind"] in ("drawings", "untrained"))


def _size(result: Result) -> str:
    return (
        f"{result['captions']} captions, {result['visits']} visits of {result['views']} images,"
        f" {result['seeds']} seeds."
    )


def _summary(results: dict[str, Result]) -> str:
    lines = [
        "| ablation | the paper | " + " | ".join(CHANCES.values()) + " |",
        "|---" * (2 + len(CHANCES)) + "|",
    ]
    for name, result in results.items():
        for claim in result["claims"]:
            verdicts = " | ".join(claim[key]["verdict"] for key in CHANCES)
            lines.append(f"| {name} | {claim['text']} | {verdicts} |")
    return "\n".join(lines)
