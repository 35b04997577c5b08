"""What the learner tells the loop of a step.

Shapes: N images; F encoder features; D projected dimensions.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from trainer.measures import alignment, mean_similarity, rankme, uniformity


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step came to."""

    loss: float
    loss_excess: float
    """Loss less the least value it could have taken on this batch."""
    lr: float
    features_NF: Tensor
    projected_ND: Tensor | None
    """None where the objective compares no images."""
    ids_N: Tensor
    loss_scale: float | None = None
    """What the next step's loss is multiplied by in float16; None in other arithmetic."""

    def measures(self) -> dict[str, float]:
        """Alignment, uniformity and mean similarities of the projections, RankMe of the features, loss scale.

        Where the objective compares no images, all of the features. What a batch can't tell is left out: what
        is about positives where no caption has two images.
        """
        scale = {} if self.loss_scale is None else {"loss_scale": self.loss_scale}
        compared_ND = self.features_NF if self.projected_ND is None else self.projected_ND
        similarity = mean_similarity(compared_ND, self.ids_N)
        found = {
            "alignment": float(alignment(compared_ND, self.ids_N)),
            "uniformity": float(uniformity(compared_ND)),
            "positive_similarity": float(similarity.positive),
            "negative_similarity": float(similarity.negative),
            "rankme": float(rankme(self.features_NF)),
        }
        return scale | {name: value for name, value in found.items() if not math.isnan(value)}
