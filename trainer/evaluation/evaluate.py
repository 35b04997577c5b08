"""Retrieval of emoji across styles: OpenMoji drawings ask, the drawings of the three other styles answer.

    drawings ─on_white, on_backgrounds→ images ─normalise→ encode ─→ features ─→ recall_at_k, knn_accuracy

Twice: on white, and with every drawing of both sides on a random background of its own.
Shapes: N images, Q of them queries, G gallery; H = W = 64 pixels; F features.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.augment import normalise
from trainer.config import EvalConfig
from trainer.evaluation.baselines import histogram, pixels
from trainer.evaluation.drawings import EMBEDDED, load_drawings, on_backgrounds, on_white
from trainer.evaluation.retrieval import knn_accuracy, recall_at_k


class _Side(NamedTuple):
    """Queries or gallery: images by variant (the suffix of its results), labels as int64."""

    images_NHWC: dict[str, NDArray[np.uint8]]
    names_N: Tensor
    subcategories_N: Tensor


class Evaluation:
    """Holds the drawings in memory; a call judges an encoder. Raises UserError where the data is missing."""

    def __init__(
        self, config: EvalConfig, image_size: int, device: torch.device | str, folder: Path = EMBEDDED
    ) -> None:
        self.config = config
        self.image_size = image_size
        self.device = torch.device(device)
        drawings = load_drawings(folder)
        numbers = {text: n for n, text in enumerate(sorted({*drawings.names, *drawings.subcategories}))}
        sides = []
        for held_out in (True, False):
            side = drawings.of(held_out=held_out)
            # Both sides on backgrounds of their own: with one seed the n-th of each would share a background.
            seed = 2 * config.background_seed + held_out
            sides.append(
                _Side(
                    {"": on_white(side.rgba_NHWA), "_backgrounds": on_backgrounds(side.rgba_NHWA, seed)},
                    torch.tensor([numbers[name] for name in side.names]),
                    torch.tensor([numbers[name] for name in side.subcategories]),
                )
            )
        self._queries, self._gallery = sides

    def evaluate(self, encode: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """`recall_at_K` and `knn_subcategory`, plain and with `_backgrounds`, of the features that `encode`
        gives: normalised float [N, 3, image_size, image_size] -> [N, F], called without gradient."""

        @torch.no_grad()
        def features(images_NHWC: NDArray[np.uint8]) -> Tensor:
            return torch.cat([encode(batch).float().cpu() for batch in self._batches(images_NHWC)])

        return self._measure(features)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The same results for raw pixels and colour histograms, by name."""
        return {"pixels": self._measure(pixels), "histogram": self._measure(histogram)}

    def gallery_batches(self) -> Iterator[Tensor]:
        """The plain gallery as `encode` gets it, but shuffled: batches to calibrate batch norm on."""
        images_NHWC = self._gallery.images_NHWC[""]
        # In the table's order a batch would be all flags or all faces, of one style.
        return self._batches(images_NHWC[np.random.default_rng(0).permutation(len(images_NHWC))])

    def _batches(self, images_NHWC: NDArray[np.uint8]) -> Iterator[Tensor]:
        for start in range(0, len(images_NHWC), self.config.batch_images):
            chunk = torch.from_numpy(images_NHWC[start : start + self.config.batch_images]).to(self.device)
            images_NCHW = normalise(chunk)
            if images_NCHW.shape[-1] != self.image_size:
                size = (self.image_size, self.image_size)
                images_NCHW = functional.interpolate(images_NCHW, size, mode="bilinear", antialias=True)
            yield images_NCHW

    def _measure(self, features: Callable[[NDArray[np.uint8]], Tensor]) -> dict[str, float]:
        queries, gallery, k = self._queries, self._gallery, self.config.k
        results = {}
        for variant in queries.images_NHWC:
            query_QF = features(queries.images_NHWC[variant])
            gallery_GF = features(gallery.images_NHWC[variant])
            recall = recall_at_k(query_QF, queries.names_N, gallery_GF, gallery.names_N, k)
            results[f"recall_at_{k}{variant}"] = recall.share
            results[f"knn_subcategory{variant}"] = knn_accuracy(
                query_QF,
                queries.subcategories_N,
                gallery_GF,
                gallery.subcategories_N,
                k,
                self.config.knn_temperature,
            )
        return results
