"""One run of `bench ablation`: a trial and a seed, from untrained weights to retrieval."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.ablation_arms import BATCH_IMAGES_STEP, SCALES, VIEWS, Trial
from benchmarks.arms import Arm
from benchmarks.modes_run import batch
from benchmarks.retrieval import judge_untrained, train_on_drawings
from benchmarks.superset import Superset, read
from launcher.run_file import RunFile, load
from protocol.errors import UserError
from protocol.identity import normalise_caption
from trainer.evaluation.drawings import load_drawings
from trainer.evaluation.evaluate import Evaluation
from trainer.learner import Learner
from trainer.objectives.needs import NEEDS
from trainer.plan import Plan

# A process that takes several runs keeps its images; beside the superset the pools are small.
_read_once = lru_cache(maxsize=8)(read)
_evaluation_once = lru_cache(maxsize=1)(Evaluation)
_WARMUP_SHARE_MAX = 4
"""At most one in so many steps of a run is warm-up, so that short runs reach their learning rate too."""


def config_of(words: Sequence[str], trial: Trial, seed: int, captions: int) -> RunFile:
    """The run file of a trial: `words` for all, the trial's own, and batches of as many images as all have.

    Raises UserError for a batch that is no multiple of BATCH_IMAGES_STEP images.
    """
    shared = load(None, ["--generation.views", str(VIEWS), *words])
    images = shared.train.batch_groups * VIEWS
    if images % BATCH_IMAGES_STEP:
        raise UserError(
            "batches can't be cut into groups of every m",
            expected=f"a multiple of {BATCH_IMAGES_STEP // VIEWS}",
            got=str(shared.train.batch_groups),
            where="--train.batch_groups",
            mend="choose another",
        )
    groups = images // (trial.views * NEEDS[trial.objective].crops)
    # Untrained weights and their batch norm do not depend on the number of steps.
    steps = max(1, captions * trial.images // images)
    settings = {
        "generation.views": trial.views,
        "generation.guidance": list(trial.guidance),
        "train.objective": trial.objective,
        "train.batch_groups": groups,
        "train.warmup_steps": min(shared.train.warmup_steps, steps // _WARMUP_SHARE_MAX),
        "run.max_steps": steps,
        "run.seed": seed,
    }
    return load(None, [*words, *trial.words, *(f"--{key}={value}" for key, value in settings.items())])


@dataclass(frozen=True)
class Pools:
    """Where images lie: the superset in `folder`, guided ones in a folder in it for each list of scales."""

    folder: Path
    captions: tuple[str, ...]
    images_a_caption: int
    """Of the superset."""
    guided_images_a_caption: int

    def folder_of(self, guidance: tuple[float, ...]) -> Path:
        """For `fill` and `read`."""
        if guidance == SCALES[:1]:
            return self.folder
        return self.folder / ("guidance_" + "_".join(f"{scale:g}" for scale in guidance))

    def count_of(self, guidance: tuple[float, ...]) -> int:
        """Images of a caption there."""
        return self.images_a_caption if guidance == SCALES[:1] else self.guided_images_a_caption

    def read(self, guidance: tuple[float, ...]) -> Superset:
        """Into memory, once a process."""
        return _read_once(self.folder_of(guidance), self.captions, self.count_of(guidance))

    def __call__(self, config: RunFile, trial: Trial) -> dict[str, Any]:
        """A run, in a process of its own."""
        return run(config, trial, self)


def run(config: RunFile, trial: Trial, pools: Pools) -> dict[str, Any]:
    """Trains an encoder as the trial tells, and judges it; also how long training took."""
    if trial.source == "untrained":
        learner = Learner(config)
        results = judge_untrained(config, learner, _evaluation(config, learner))["untrained"]
        return {"steps": 0, "images_trained": 0, "images_drawn": 0, "train_seconds": 0.0, **results}
    began, excess = time.monotonic(), [0.0]
    steps = config.run.max_steps
    if trial.source == "drawings":
        names = frozenset(map(normalise_caption, pools.captions))
        learner = train_on_drawings(config, steps, lambda step, value: excess.append(value), names)
    else:
        learner = _train(config, trial, pools.read(trial.guidance), excess)
    return {
        "steps": steps,
        "images_trained": steps * config.batch_images,
        "images_drawn": trial.images_drawn * len(pools.captions),
        "train_seconds": time.monotonic() - began,
        "loss_excess": excess[-1],
        **_evaluation(config, learner).evaluate(learner.encode),
    }


def _train(config: RunFile, trial: Trial, images: Superset, excess: list[float]) -> Learner:
    assert trial.source in ("pool", "fresh", "replay")
    arm = Arm(name="", kind=trial.source, visits=0, pool_images=trial.pool_images, reuse=trial.reuse)
    plan = Plan(images.captions, config.run.seed, config.generation)
    learner = Learner(config, _class_of() if NEEDS[trial.objective].classes else None)
    for step in range(1, config.run.max_steps + 1):
        excess.append(learner.step(batch(plan, images, arm, step, config.train.batch_groups)).loss_excess)
    return learner


def _evaluation(config: RunFile, learner: Learner) -> Evaluation:
    return _evaluation_once(config.eval, config.augment.crop_size, learner.device)


def _class_of() -> Callable[[str], int]:
    """A caption's class: the Unicode subcategory of the drawings that have it as their name."""
    drawings = load_drawings()
    numbers = {text: number for number, text in enumerate(sorted(set(drawings.subcategories)))}
    names = map(normalise_caption, drawings.names)
    classes = {
        name: numbers[subcategory] for name, subcategory in zip(names, drawings.subcategories, strict=True)
    }
    return lambda caption: classes[caption]
