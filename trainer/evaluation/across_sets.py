"""One encoder on all sets that it was judged on so far, and its mean over them, as the papers' tables end.

evaluations/SET/results.json of each set ─same encoder→ AcrossSets ─→ evaluations/sets.json, and lines
"""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from trainer.evaluation.result import Found, Result
from trainer.run_folder import write_json

FILE = "sets.json"


class Across(Struct, frozen=True, kw_only=True):
    """One kind and variant."""

    name: str
    by_set: dict[str, float]
    """The score that the set's l2 was chosen by, where it was, else the first."""
    mean: float | None
    """None where a set lacks this kind: it would be the mean over other sets than its neighbours'."""


class AcrossSets(Struct, frozen=True, kw_only=True):
    """The document sets.json."""

    encoder: str
    encoder_digest: str
    sets: list[str]
    rows: list[Across]


def judged_sets(folder: Path, encoder_digest: str) -> list[Found]:
    """What lies below `folder` of that encoder, by the names of the sets. Other files are passed over."""
    found = []
    for path in sorted(folder.glob("*/results.json")):
        try:
            one = msgspec.convert(json.loads(path.read_text("utf-8")), Found)
        except (OSError, ValueError):  # half a copy, or of another version
            continue
        if one.encoder_digest == encoder_digest and one.results:
            found.append(one)
    return found


def across_sets(found: Sequence[Found]) -> AcrossSets:
    """Of at least one set."""
    sets = [one.data for one in found]
    by_name: dict[str, dict[str, float]] = {}
    for one in found:
        for result in one.results:
            by_name.setdefault(result.name, {})[one.data] = _score(result)
    rows = [
        Across(
            name=name,
            by_set=scores,
            mean=sum(scores.values()) / len(sets) if len(scores) == len(sets) else None,
        )
        for name, scores in by_name.items()
    ]
    return AcrossSets(encoder=found[0].encoder, encoder_digest=found[0].encoder_digest, sets=sets, rows=rows)


def _score(result: Result) -> float:
    first = next(iter(result.scores.values()))
    return result.scores.get(result.settings.get("chosen_by", ""), first)


def save_across(folder: Path, across: AcrossSets) -> None:
    """Writes sets.json by rename."""
    write_json(folder / FILE, msgspec.to_builtins(across))


def lines_of(across: AcrossSets) -> str:
    """A line for each row, for people."""
    width = max(len(row.name) for row in across.rows)
    lines = []
    for row in across.rows:
        cells = [f"{name} {row.by_set[name]:.1%}" for name in across.sets if name in row.by_set]
        mean = [] if row.mean is None else [f"mean {row.mean:.1%}"]
        lines.append(f"  {row.name:{width}}  " + "  ".join([*cells, *mean]))
    return "\n".join(lines)
