"""Rows of metrics.jsonl as named curves."""

from trainer.metrics import Row

_TRAIN = ("loss", "lr", "rankme", "alignment", "uniformity", "positive_", "negative_")
_EVALUATION = ("recall_at_", "knn_")
_KEYS = ("step", "time")


def scalars_of(row: Row) -> dict[str, float]:
    """Its numbers as `train/...`, `evaluation/...` and `stream/...`; those of a nested table, such as the
    seconds of each kind of stall, one level deeper. Texts have no curve."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if key in _KEYS:
            continue
        if key.startswith(_EVALUATION):
            name = f"evaluation/{key}"
        elif key.startswith(_TRAIN):
            name = f"train/{key}"
        else:
            name = f"stream/{key}"
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for part, number in parts:
            if isinstance(number, int | float) and not isinstance(number, bool):
                found[f"{name}/{part}" if part else name] = float(number)
    return found
