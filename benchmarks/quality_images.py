"""The images that `bench quality` judges and trains on: of each setting, and of real drawings beside them."""

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.quality_design import OWN, Setting
from benchmarks.retrieval import placed
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.model_folder import ModelFolder, open_model_folder
from launcher.run_file import RunFile
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.identity import digest_of, normalise_caption
from protocol.payload import ImagesNHWC
from trainer.captions import Captions
from trainer.evaluation.drawings import Drawings
from trainer.plan import Plan

VIEWS = 3
_SAY_SECONDS = 10.0


@dataclass(frozen=True)
class Draw:
    """Draws a setting's images into a file of `folder`; called in a process of its own."""

    config: RunFile
    folder: Path
    captions: tuple[str, ...]
    images_a_caption: int

    def model(self, setting: Setting) -> ModelFolder:
        """Its files. Raises UserError where there are none."""
        generator = self.config.generator
        decoder = "" if setting.decoder == OWN else setting.decoder
        return open_model_folder(generator.model, decoder, generator.loras, generator.lora_scales)

    def spec(self, setting: Setting) -> GenerationSpec:
        """What an engine is built for."""
        generation = self.config.generation
        return msgspec.structs.replace(
            generation, views=VIEWS, steps=setting.steps, guidance=(setting.guidance,)
        )

    def key(self, setting: Setting) -> str:
        """Names the images: of all that decides them and the time they take."""
        generator = self.config.generator
        return digest_of(
            {
                "weights": self.model(setting).weights_digest(),
                "generation": msgspec.to_builtins(self.spec(setting)),
                "precision": setting.precision,
                "batch_images": generator.batch_images,
                "device": generator.device,
                "threads": generator.threads,
                "seed": self.config.run.seed,
                "captions": self.captions,
                "images_a_caption": self.images_a_caption,
            }
        )

    def path(self, key: str) -> Path:
        """Where the images of a key lie: uint8 [C, M, size, size, 3]."""
        return self.folder / "images" / f"{key}.npy"

    def __call__(self, setting: Setting) -> dict[str, Any]:
        """How fast; the images are in the file then. Batches that are not full are not timed, but where there
        is no other."""
        model, spec = self.model(setting), self.spec(setting)
        generator = msgspec.structs.replace(
            self.config.generator,
            engine="eager",
            decoder="" if setting.decoder == OWN else setting.decoder,
            precision=setting.precision,
        )
        engine = DiffusionEngine(generator, model, model.weights_digest(), spec, lambda: False)
        plan = Plan(Captions(self.captions), self.config.run.seed, spec)
        tickets = [plan.ticket(group) for group in range(len(self.captions) * self.images_a_caption // VIEWS)]
        size = engine.batch_images // VIEWS
        found: dict[str, list[ImagesNHWC]] = {caption: [] for caption in plan.captions.texts}
        rates: list[float] = []
        began = said = time.monotonic()
        for start in range(0, len(tickets), size):
            batch, before = tickets[start : start + size], time.monotonic()
            for ticket, images_NHWC in zip(batch, engine.draw(batch, lambda: False), strict=True):
                found[ticket.caption].append(images_NHWC)
            if len(batch) == size or not rates:
                rates.append(len(batch) * VIEWS / (time.monotonic() - before))
            done = start + len(batch)
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                left = (said - began) / done * (len(tickets) - done)
                print(f"{setting.label}: {done} of {len(tickets)} groups, {left:.0f} s left", file=sys.stderr)
        images = np.stack([np.concatenate(found[caption]) for caption in plan.captions.texts])
        save_images(self.path(self.key(setting)), images)
        return {"images_per_second": statistics.median(rates), "draw_seconds": time.monotonic() - began}


def save_images(path: Path, images_CMHWC: Any) -> None:
    """Written aside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.save(file, images_CMHWC, allow_pickle=False)
    os.replace(temporary, path)


def load_images(path: Path) -> Any:
    """uint8 [C, M, size, size, 3]. Raises UserError where the file is gone."""
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(
            "images that were drawn are gone",
            expected="the file that an earlier start wrote",
            got=str(error.strerror),
            where=str(path),
            mend="remove runs.jsonl beside `images`, or name another --folder",
        ) from error


def drawings_of(drawings: Drawings, captions: Sequence[str], images: int, seed: int) -> Any:
    """uint8 [C, M, 64, 64, 3]: real drawings of each caption, in random styles, placed at random."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(drawings.names):
        rows.setdefault(normalise_caption(name), []).append(row)
    random = torch.Generator().manual_seed(seed)
    rgba_NAHW = torch.from_numpy(drawings.rgba_NHWA).permute(0, 3, 1, 2)
    groups = []
    for caption in captions:
        own = torch.tensor(rows[caption])
        chosen = own[torch.randint(len(own), (images,), generator=random)]
        groups.append(placed(rgba_NAHW[chosen], random))
    return np.stack(groups)
