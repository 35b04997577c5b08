"""The table and the picture of `bench quality`."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scatter import Panel, write_scatter

REAL = "real drawings"
ACCURACIES = {"recall_at_10": "R@10", "recall_at_10_backgrounds": "R@10 on backgrounds"}
"""Results of trained encoders, and what people call them."""
RESULTS = {
    "name_recall_at_10": "fidelity: name R@10",
    "vendi_pixels": "diversity: Vendi, pixels",
    "recall_at_10_backgrounds": "encoder: R@10, backgrounds",
}
"""What the picture shows."""


def entry_of(
    label: str,
    drawn: Mapping[str, Any],
    scores: Mapping[str, float],
    trained: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What was measured of one setting; accuracies as mean, lowest and highest over seeds."""
    entry: dict[str, Any] = {"setting": label, **drawn, **scores}
    for key in ACCURACIES:
        values = [row[key] for row in trained]
        entry[key] = {"mean": statistics.mean(values), "lowest": min(values), "highest": max(values)}
    return entry


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, in the order of the entries: the first is the base that speeds are compared with."""
    titles = ["setting", "images/s", "x", "name R@10", "Vendi pixels", "Vendi judge", *ACCURACIES.values()]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for entry in entries:
        speed, times = "", ""
        if "images_per_second" in entry:
            speed = f"{entry['images_per_second']:.1f}"
            times = f"{entry['images_per_second'] / entries[0]['images_per_second']:.2f}"
        cells = [entry["setting"], speed, times, f"{entry['name_recall_at_10']:.1%}"]
        cells += [f"{entry['vendi_pixels']:.2f}", f"{entry['vendi_features']:.2f}"]
        for key in ACCURACIES:
            found = entry[key]
            lowest, highest = f"{found['lowest']:.1%}", f"{found['highest']:.1%}"
            cells.append(f"{found['mean']:.1%}" + (f" ({lowest} to {highest})" if lowest != highest else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_picture(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Speed against each result; a line at that of the real drawings."""
    drawn = [entry for entry in entries if "images_per_second" in entry]
    real = next(entry for entry in entries if entry["setting"] == REAL)
    panels = [
        Panel(
            title=title,
            points={entry["setting"]: (entry["images_per_second"], _value(entry, key)) for entry in drawn},
            line=_value(real, key),
        )
        for key, title in RESULTS.items()
    ]
    write_scatter(path, panels, "images a second", f"{REAL}, placed at random")


def _value(entry: Mapping[str, Any], key: str) -> float:
    found = entry[key]
    return float(found["mean"] if isinstance(found, Mapping) else found)
