"""The figures of `bench ablation`: means and intervals, paired differences, verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from benchmarks.ablation_arms import Part
from benchmarks.ablation_paper import Claim
from benchmarks.modes_table import CHANCES
from benchmarks.student import interval

Entry = dict[str, Any]
RowsOf = Mapping[str, Sequence[Entry]]
"""Results by an arm's label, a row a seed, in the order of the seeds."""
Verdict = Literal["agrees", "disagrees", "not shown"]


def compare(part: Part, rows_of: RowsOf) -> Entry:
    """A table: an entry an arm, with its differences from the baseline paired by seed."""
    entries = []
    for label, trial in part.arms.items():
        rows, baseline = rows_of[label], rows_of[part.baseline]
        entry: Entry = {"arm": label, "kind": trial.source, "seeds": len(rows)}
        for key in CHANCES:
            mean, half = interval([row[key] for row in rows])
            entry[key] = {"mean": mean, "interval": half}
            if label != part.baseline:
                pairs = [row[key] - other[key] for row, other in zip(rows, baseline, strict=True)]
                over, over_half = interval(pairs)
                entry[key] |= {"over_baseline": over, "over_baseline_interval": over_half}
        entries.append(entry | {key: rows[0][key] for key in ("images_trained", "images_drawn")})
    return {"title": part.title, "baseline": part.baseline, "arms": entries}


def judge(claim: Claim, rows_of: RowsOf) -> Entry:
    """The claim's difference, seed by seed, and what its interval says of each result."""
    found: Entry = {"text": claim.text, "source": claim.source}
    seeds = {len(rows_of[label]) for label in claim.difference}
    assert len(seeds) == 1, f"{claim.text}: arms of different seeds"
    for key in CHANCES:
        values = [
            sum(factor * rows_of[label][seed][key] for label, factor in claim.difference.items())
            for seed in range(*seeds)
        ]
        mean, half = interval(values)
        found[key] = {"difference": mean, "interval": half, "verdict": verdict(mean, half)}
    return found


def verdict(difference: float, half: float) -> Verdict:
    """Agrees where the whole interval lies above 0, disagrees where it lies below; else neither is shown."""
    if difference - half > 0:
        return "agrees"
    return "disagrees" if difference + half < 0 else "not shown"


def table(part: Entry) -> str:
    """Markdown of what `compare` gave."""
    columns = [column for name in CHANCES.values() for column in (name, f"over {part['baseline']}")]
    lines = ["| arm | drawn | trained | " + " | ".join(columns) + " |", "|---" * (3 + len(columns)) + "|"]
    for entry in part["arms"]:
        cells = [cell for key in CHANCES for cell in _chance(entry[key])]
        # A generator draws nothing for drawings and for untrained weights.
        drawn = f"{entry['images_drawn']:,}" if entry["images_drawn"] else ""
        lines.append(
            f"| {entry['arm']} | {drawn} | {entry['images_trained']:,} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def claims_table(claims: Sequence[Entry]) -> str:
    """Markdown of what `judge` gave."""
    columns = [column for name in CHANCES.values() for column in (name, "")]
    lines = ["| the paper | where | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for claim in claims:
        cells = [
            cell
            for key in CHANCES
            for cell in (_points(claim[key]["difference"], claim[key]["interval"]), claim[key]["verdict"])
        ]
        lines.append(f"| {claim['text']} | {claim['source']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _chance(found: Entry) -> tuple[str, str]:
    over = ""
    if "over_baseline" in found:
        over = _points(found["over_baseline"], found["over_baseline_interval"])
    return f"{found['mean']:.1%} ± {found['interval']:.1%}", over


def _points(difference: float, half: float) -> str:
    return f"{100 * difference:+.1f} ± {100 * half:.1f} points"
