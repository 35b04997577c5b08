"""What judging an encoder found: one row a kind and variant, kept as results.json, a table and a page."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from trainer.evaluation.measure import Measure
from trainer.run_folder import write_json

_SHARES = ("accuracy", "map_11_point", "map_area", "mean_class", "worst_class", "worst_group")


class Result(Struct, frozen=True, kw_only=True):
    """`scores` are shares of 0 to 1."""

    kind: str
    variant: str | None = None
    """`paper` or `clean`, where these differ."""
    chosen_on: str | None = None
    """The pictures on which hyperparameters were chosen; None where nothing was."""
    scores: dict[str, float]
    settings: dict[str, Any] = {}
    worst_class_name: str = ""
    by_class: dict[str, float] = {}
    by_group: dict[str, float] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    """Points by label, for a chart whose horizontal axis is `curve_of`."""
    curve_of: str = ""

    @property
    def name(self) -> str:
        """`linear, batch_norm (clean)`"""
        norm = f", {self.settings['norm']}" if "norm" in self.settings else ""
        return f"{self.kind}{norm}" + (f" ({self.variant})" if self.variant else "")


class Found(Struct, frozen=True, kw_only=True):
    """The document results.json."""

    encoder: str
    encoder_digest: str
    """Of weights, config, picture size and arithmetic."""
    data: str
    data_digest: str
    pictures: dict[str, int]
    """By split."""
    classes: int
    results: list[Result]

    def with_results(self, new: Sequence[Result]) -> "Found":
        """The rows of `new` in place of those of the same kinds and variants."""
        renewed = {(result.kind, result.variant) for result in new}
        kept = [result for result in self.results if (result.kind, result.variant) not in renewed]
        return msgspec.structs.replace(self, results=[*kept, *new])


def of_measure(kind: str, measured: Measure, **fields: Any) -> Result:
    """A row of what was measured and what else is known of it."""
    values = dataclasses.asdict(measured)
    scores = {name: values[name] for name in _SHARES if values.get(name) is not None}
    return Result(
        kind=kind,
        scores=scores,
        worst_class_name=measured.worst_class_name,
        by_class=measured.by_class,
        by_group=measured.by_group,
        **fields,
    )


def save_found(path: Path, found: Found) -> None:
    """Writes results.json by rename."""
    write_json(path, msgspec.to_builtins(found))


def known_found(path: Path, empty: Found) -> Found:
    """What an earlier evaluation of the same encoder on the same pictures wrote to `path`, else `empty`."""
    try:
        found = msgspec.convert(json.loads(path.read_text("utf-8")), Found)
    except (OSError, ValueError):  # none, or of another version: it is written anew
        return empty
    same = (found.encoder_digest, found.data_digest) == (empty.encoder_digest, empty.data_digest)
    return found if same else empty


def table(found: Found) -> str:
    """A line for each row, for people."""
    width = max(len(result.name) for result in found.results)
    lines = []
    for result in found.results:
        interval = result.settings.get("interval")
        parts = []
        for name, value in result.scores.items():
            text = f"{name} {value:.1%}"
            if name == "accuracy" and interval is not None:
                text += f" ± {interval:.1%}"
            if name == "worst_class":
                text += f" ({result.worst_class_name})"
            parts.append(text)
        if result.chosen_on:
            parts.append(f"chosen on {result.chosen_on}")
        lines.append(f"  {result.name:{width}}  " + "  ".join(parts))
    return "\n".join(lines)
