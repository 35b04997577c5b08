"""Who judges the images of `bench quality`: an encoder trained on real drawings, each placed at random.

real drawings ─ train_on_drawings ─→ encoder ─┬─ features of every drawing, placed anew: the gallery ─┐
images ───────────────────────────────────────┴─ features ──────────────── R@10 by name, Vendi score ─┘
"""

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.retrieval import placed, train_on_drawings
from benchmarks.vendi import mean_vendi, pixel_features
from protocol.identity import digest_of, normalise_caption
from protocol.payload import ImagesNHWC
from trainer.config import TrainerConfig
from trainer.device import resolve_device, resolve_precision
from trainer.evaluation.drawings import Drawings
from trainer.evaluation.retrieval import recall_at_k
from trainer.evaluation.subject import Subject

DEPTH = 10
"""A name is told where one of so many nearest drawings has it."""
GALLERY_SEED = 1_000_003
_CHUNK = 256


class Judge:
    """An encoder, and what it makes of the drawings that it knows."""

    def __init__(self, encoder: Subject, drawings: Drawings) -> None:
        self._encoder = encoder
        random = torch.Generator().manual_seed(GALLERY_SEED)
        gallery_NHWC = placed(torch.from_numpy(drawings.rgba_NHWA).permute(0, 3, 1, 2), random)
        self._gallery_ND = self._features(gallery_NHWC)
        self._mean_D = self._gallery_ND.mean(0)
        self._mean_CHW = torch.from_numpy(gallery_NHWC).float().mean(0).permute(2, 0, 1) / 127.5 - 1
        names = [normalise_caption(name) for name in drawings.names]
        self._numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        self._labels_N = self._labels(names)

    def score(self, captions: Sequence[str], images_CMHWC: Any) -> dict[str, float]:
        """Of uint8 [C, M, 64, 64, 3]: fidelity, the share of images whose caption is among the names of the
        ten nearest drawings; diversity, the mean Vendi score of a caption's M, in pixels and in features.
        """
        count, images = images_CMHWC.shape[:2]
        flat_NHWC = images_CMHWC.reshape(count * images, *images_CMHWC.shape[2:])
        features_ND = self._features(flat_NHWC)
        labels_N = self._labels(captions).repeat_interleave(images)
        centred_ND = functional.normalize(features_ND - self._mean_D, dim=1)
        unit_NCHW = torch.from_numpy(flat_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1
        pixels_ND = pixel_features(unit_NCHW, self._mean_CHW)
        recall = recall_at_k(features_ND, labels_N, self._gallery_ND, self._labels_N, DEPTH)
        return {
            "name_recall_at_10": recall.share,
            "vendi_pixels": mean_vendi(torch.split(pixels_ND, images)),
            "vendi_features": mean_vendi(torch.split(centred_ND, images)),
        }

    def _labels(self, names: Iterable[str]) -> Tensor:
        return torch.tensor([self._numbers[name] for name in names])

    def _features(self, images_NHWC: ImagesNHWC) -> Tensor:
        chunks = torch.split(torch.from_numpy(images_NHWC), _CHUNK)
        return torch.cat([self._encoder.encode(chunk).cpu() for chunk in chunks])


def train_judge(config: TrainerConfig, drawings: Drawings, steps: int, folder: Path) -> Judge:
    """The judge of `steps` steps with the settings of `config`, kept in `folder` under their digest."""
    parts = [config.run.seed, steps]
    sections = [config.model, config.train, config.augment, config.generation.views]
    key = digest_of({"parts": parts, "sections": msgspec.to_builtins(sections)})
    path = folder / "judges" / key
    if not path.exists():
        began = time.monotonic()

        def say(step: int, excess: float) -> None:
            if step % 50 == 0 or step == steps:
                left = (time.monotonic() - began) / step * (steps - step)
                print(f"judge: step {step} of {steps}, {left:.0f} s left", file=sys.stderr)

        trained = train_on_drawings(config, steps, say)
        temporary = path.with_name(key + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        trained.save_encoder(temporary)
        if path.exists():  # another process was as far
            shutil.rmtree(temporary)
        else:
            temporary.rename(path)
    device = resolve_device(config.train)
    return Judge(Subject(path, device, resolve_precision(config.train, device)), drawings)
