"""The closing table of `streamrep up`, from the summary.json that the trainer leaves in the run's folder."""

from collections.abc import Mapping
from typing import Any

ROWS: tuple[tuple[str, str, str], ...] = (
    ("images_generated", "images generated", ",d"),
    ("images_trained", "images trained", ",d"),
    ("mean_uses", "mean uses of an image", ".2f"),
    ("fresh_share", "fresh share of all images trained", ".1%"),
    ("waiting_share", "share of time spent waiting", ".1%"),
    ("recall_at_10", "R@10, trained encoder", ".1%"),
    ("recall_at_10_untrained", "R@10, untrained encoder", ".1%"),
    ("recall_at_10_backgrounds", "R@10 on backgrounds, trained", ".1%"),
    ("recall_at_10_backgrounds_untrained", "R@10 on backgrounds, untrained", ".1%"),
    ("knn_subcategory", "subcategory kNN, trained", ".1%"),
    ("knn_subcategory_untrained", "subcategory kNN, untrained", ".1%"),
    ("knn_subcategory_backgrounds", "subcategory kNN on backgrounds, trained", ".1%"),
    ("knn_subcategory_backgrounds_untrained", "subcategory kNN on backgrounds, untrained", ".1%"),
    ("wall_seconds", "seconds", ",.0f"),
)


def summary_table(summary: Mapping[str, Any]) -> str:
    """Two aligned columns; known keys in a fixed order with their formats, then the others as they are."""
    known = {key for key, _, _ in ROWS}
    rows = [(label, _shown(summary[key], form)) for key, label, form in ROWS if key in summary]
    rows += [(key.replace("_", " "), str(value)) for key, value in summary.items() if key not in known]
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)


def _shown(value: Any, form: str) -> str:
    return "not measured" if value is None else format(value, form)
