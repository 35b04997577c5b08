"""Rows as curves."""

from trainer.trackers.scalars import scalars_of


def test_numbers_become_curves_by_kind_and_texts_none() -> None:
    """Nested tables lie one level deeper; step and time are the axes."""
    row = {
        "step": 3,
        "time": 1.5,
        "loss": 2.5,
        "recall_at_10": 0.25,
        "knn_subcategory": 0.5,
        "workers": 2,
        "mode": "online",
        "refused": {"digest": 4},
        "stalls": {},
    }
    assert scalars_of(row) == {
        "train/loss": 2.5,
        "evaluation/recall_at_10": 0.25,
        "evaluation/knn_subcategory": 0.5,
        "stream/workers": 2.0,
        "stream/refused/digest": 4.0,
    }
