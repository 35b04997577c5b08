"""Features of whole splits, computed once and kept in files.

A file's name is a hash of the encoder, the pictures and how they were cut to size; it is written aside and
renamed, so one that is there is whole.
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import xxhash
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.evaluation.image_set import Split
from trainer.evaluation.loading import Prepare, centre_crop, load_batches
from trainer.evaluation.subject import Subject
from trainer.progress import Progress

VIEWS: dict[str, tuple[float, Image.Resampling]] = {
    "large": (256 / 224, Image.Resampling.BILINEAR),
    "small": (1.0, Image.Resampling.BICUBIC),
}
"""Shorter side by the encoder's size, and the filter: the linear probe's on large sets (StableRep's
main_linear.py), and the one for all small sets (SynCLR's main_downstream_linear.py)."""


class Features:
    """Encodes the splits of one set with one encoder."""

    def __init__(
        self,
        subject: Subject,
        cache: Path,
        *,
        batch_images: int,
        workers: int,
        stop: threading.Event,
    ) -> None:
        self.subject = subject
        self.cache = cache
        self.batch_images = batch_images
        self.workers = workers
        self.stop = stop

    def of(self, split: Split, view: str) -> Tensor:
        """float32 [N, F] on the CPU, row by row. Raises UserError and StopRequestedError."""
        subject = self.subject
        key = xxhash.xxh3_64_hexdigest(f"{subject.digest}:{split.digest}:{view}".encode())
        path = self.cache / f"features-{key}.safetensors"
        if path.exists():
            return load_file(path)["features"]
        ratio, filter_ = VIEWS[view]
        prepare = centre_crop(subject.image_size, round(subject.image_size * ratio), filter_)
        features_NF = self._encode(split, prepare)
        self.cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        save_file({"features": features_NF}, temporary)
        temporary.replace(path)
        return features_NF

    def _encode(self, split: Split, prepare: Prepare) -> Tensor:
        progress = Progress(len(split), sys.stderr, unit=f"encoding {split.name}: picture")
        rows: list[Tensor] = []
        done = 0
        for chunk, images_NHWC in self.batches(split, range(len(split)), prepare, self.batch_images):
            rows.append(self.subject.encode(images_NHWC).cpu())
            done += len(chunk)
            progress.update({"step": done})
        progress.close()
        return torch.cat(rows)

    def batches(
        self, split: Split, rows: Sequence[int], prepare: Prepare, batch_images: int
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """`load_batches` of a split with this evaluation's threads."""
        return load_batches(
            split.read,
            rows,
            prepare,
            batch_images=batch_images,
            workers=self.workers,
            stop=self.stop,
        )
