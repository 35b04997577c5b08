"""Rows as curves."""

import torch

from trainer.step_result import StepResult
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


def test_all_that_is_measured_of_a_batch_is_a_curve_of_training() -> None:
    """Under the names that a step gives its measures."""
    features = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([1, 1, 2, 2, 3, 3])
    result = StepResult(
        loss=1.0,
        loss_excess=0.5,
        lr=0.1,
        features_NF=features,
        projected_ND=features,
        ids_N=ids,
        loss_scale=1024.0,
    )
    measures = result.measures()
    assert len(measures) == 6
    assert scalars_of({"step": 1, "time": 0.0, **measures}) == {
        f"train/{name}": value for name, value in measures.items()
    }
