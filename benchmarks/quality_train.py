"""What an encoder learns from the images of `bench quality`, in a fixed number of optimizer steps."""

import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.arms import Arm
from benchmarks.modes_run import batch
from benchmarks.quality_images import load_images
from benchmarks.superset import Superset
from launcher.run_file import RunFile
from trainer.captions import Captions
from trainer.evaluation.evaluate import Evaluation
from trainer.learner import Learner
from trainer.plan import Plan

_SAY_SECONDS = 10.0

evaluation_once = lru_cache(maxsize=1)(Evaluation)
"""A process that trains several encoders keeps its drawings."""


@dataclass(frozen=True)
class Train:
    """Trains an encoder on the images of a file, and judges it; called in a process of its own."""

    config: RunFile
    captions: tuple[str, ...]
    steps: int

    def __call__(self, path: Path, seed: int) -> dict[str, Any]:
        """The results of `Evaluation`. The images are served as a pool's; encoders of one seed start alike,
        and see the same captions in the same order.
        """
        settings = msgspec.structs.replace(self.config.run, seed=seed, max_steps=self.steps)
        config = msgspec.structs.replace(self.config, run=settings)
        images, captions = load_images(path), Captions(self.captions)
        superset = Superset(
            captions=captions,
            images=dict(zip(captions.ids, images, strict=True)),
            digest=path.stem,
            fill_seconds=0.0,
            picture_bytes=float(images[0, 0].nbytes),
        )
        arm = Arm(name=path.stem, kind="pool", visits=0, pool_images=images.shape[1])
        plan, learner = Plan(captions, seed, config.generation), Learner(config)
        began = said = time.monotonic()
        excess = 0.0
        for step in range(1, self.steps + 1):
            excess = learner.step(batch(plan, superset, arm, step, config.train.batch_groups)).loss_excess
            if time.monotonic() - said > _SAY_SECONDS:
                said = time.monotonic()
                left = (said - began) / step * (self.steps - step)
                print(f"step {step} of {self.steps}, {left:.0f} s left", file=sys.stderr)
        seconds = time.monotonic() - began
        evaluation = evaluation_once(config.eval, config.augment.crop_size, learner.device)
        return {"train_seconds": seconds, "loss_excess": excess, **evaluation.evaluate(learner.encode)}
