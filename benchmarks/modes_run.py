"""One run of `bench modes`: an arm and a seed, from untrained weights to retrieval."""

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.arms import Arm, served
from benchmarks.groups import group_of
from benchmarks.superset import Superset, read
from launcher.run_file import RunFile
from trainer.batch import Batch
from trainer.evaluation.evaluate import Evaluation
from trainer.learner import Learner
from trainer.plan import Plan

VIEWS = 3

read_once = lru_cache(maxsize=1)(read)
"""A process that takes several runs keeps its images."""


@dataclass(frozen=True)
class Job:
    """What all runs share; called in a process of its own with what one run is."""

    config: RunFile
    folder: Path
    captions: tuple[str, ...]
    images_a_caption: int

    def __call__(self, arm: Arm, seed: int) -> dict[str, Any]:
        """The run's results."""
        return run(self.config, read_once(self.folder, self.captions, self.images_a_caption), arm, seed)


def run(config: RunFile, superset: Superset, arm: Arm, seed: int) -> dict[str, Any]:
    """Trains an encoder as the arm tells, and judges it; also how long that took."""
    groups = arm.visits * len(superset.captions)
    steps = groups // config.train.batch_groups
    settings = msgspec.structs.replace(config.run, seed=seed, max_steps=steps)
    config = msgspec.structs.replace(config, run=settings)
    plan = Plan(superset.captions, seed, config.generation)
    learner = Learner(config)
    began, excess = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        excess = learner.step(batch(plan, superset, arm, step, config.train.batch_groups)).loss_excess
    seconds = time.monotonic() - began
    evaluation = Evaluation(config.eval, config.augment.crop_size, learner.device)
    return {
        "steps": steps,
        "images_trained": steps * config.train.batch_groups * VIEWS,
        "images_drawn": arm.images_drawn(VIEWS) * len(superset.captions),
        "bytes_stored": arm.pool_images * len(superset.captions) * superset.picture_bytes,
        "train_seconds": seconds,
        "loss_excess": excess,
        **evaluation.evaluate(learner.encode),
    }


def batch(plan: Plan, superset: Superset, arm: Arm, step: int, count: int) -> Batch:
    """The batch of step 1, 2, ... of an arm."""
    tickets = [plan.ticket(group) for group in range((step - 1) * count, step * count)]
    groups = tuple(
        group_of(ticket, superset.images[ticket.caption_id][served(arm, ticket, plan.run_seed)], "pool")
        for ticket in tickets
    )
    # Every use is its ticket's first, also of a replayed image: so the arms augment alike.
    return Batch(step=step, groups=groups, uses=(1,) * count)
