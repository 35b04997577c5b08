"""The tables of `bench modes`: means with intervals, paired differences, and what each arm cost."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.student import interval
from benchmarks.superset import Superset

CHANCES = {"recall_at_10": "R@10", "recall_at_10_backgrounds": "R@10 on backgrounds"}
"""Results that are compared, and what people call them."""


def compare(rows: Sequence[dict[str, Any]], superset: Superset) -> list[dict[str, Any]]:
    """One entry an arm: results with intervals, differences from the largest pool paired by seed, costs."""
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    largest = [rows for rows in by_arm.values() if rows[0]["kind"] == "pool"][-1]
    drawn = len(superset.captions) * len(next(iter(superset.images.values())))
    entries = []
    for name, found in by_arm.items():
        entry: dict[str, Any] = {"arm": name, "kind": found[0]["kind"], "seeds": len(found)}
        for key in CHANCES:
            mean, half = interval([row[key] for row in found])
            pairs = [row[key] - other[key] for row, other in zip(found, largest, strict=True)]
            difference, difference_half = interval(pairs)
            entry[key] = {"mean": mean, "interval": half}
            entry[key] |= {"over_largest_pool": difference, "over_largest_pool_interval": difference_half}
        for key in ("images_trained", "images_drawn", "bytes_stored"):
            entry[key] = found[0][key]
        train = statistics.median(row["train_seconds"] for row in found)
        draw = found[0]["images_drawn"] / drawn * superset.fill_seconds
        entries.append(entry | {"draw_seconds": draw, "train_seconds": train})
    return entries


def tables(entries: Sequence[dict[str, Any]]) -> str:
    """Markdown: accuracy at equal images trained, then what was drawn, waited and stored for it."""
    most = max(entry["images_trained"] for entry in entries)
    lines = ["| arm | " + " | ".join(f"{name} | over l = 10" for name in CHANCES.values()) + " |"]
    lines += ["|---" * (1 + 2 * len(CHANCES)) + "|"]
    for entry in entries:
        if entry["images_trained"] == most:
            cells = [_chance(entry[key]) for key in CHANCES]
            lines.append(f"| {entry['arm']} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| arm | drawn | trained | R@10 | seconds to draw | to train | MB stored |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {entry['arm']} | {entry['images_drawn']:,} | {entry['images_trained']:,}"
        f" | {entry['recall_at_10']['mean']:.1%} | {entry['draw_seconds']:,.0f}"
        f" | {entry['train_seconds']:,.0f} | {entry['bytes_stored'] / 1e6:.1f} |"
        for entry in sorted(entries, key=lambda entry: (entry["images_drawn"], entry["arm"]))
    ]
    return "\n".join(lines)


def _chance(found: dict[str, float]) -> str:
    return (
        f"{found['mean']:.1%} ± {found['interval']:.1%}"
        f" | {100 * found['over_largest_pool']:+.1f} ± {100 * found['over_largest_pool_interval']:.1f} points"
    )
