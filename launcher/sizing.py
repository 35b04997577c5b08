"""What a schedule costs: images, GPU hours, machines and bytes, from measured rates. Pure arithmetic.

fresh: each group is drawn once and trained on `max_reuse` times, generators and trainers work side by side
pool:  l images of each caption are drawn first and stored; training takes m of them at each visit
"""

import math
from dataclasses import dataclass

from trainer.limits import RING_BATCHES, WINDOW_BATCHES

CHANNELS = 3
_SLACK = 1e-9
"""So that a quotient that is whole but for its rounding is not rounded up."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is to be trained. Groups are the m views of one caption's visit."""

    captions: int
    epochs: int
    views: int
    batch_groups: int
    size: int
    """Side of an image in pixels."""
    max_reuse: int = 1

    @property
    def groups_trained(self) -> int:
        """Repeats included."""
        return self.captions * self.epochs

    @property
    def image_bytes(self) -> int:
        """Of an image as it is sent and held: uint8 RGB."""
        return self.size * self.size * CHANNELS


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Who is to do it. Rates are images a second of one GPU; None is not known, or to be chosen."""

    generator_rate: float
    trainer_rate: float | None = None
    generator_gpus: int | None = None
    trainer_gpus: int = 1


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """What it comes to. None is what needs a trainer's rate, or belongs to the other way of training."""

    images_trained: int
    images_generated: int
    mean_uses: float
    """Trainings of an image on average."""
    steps: int
    generator_gpus: int
    generator_gpu_hours: float
    trainer_gpus: int
    trainer_gpu_hours: float | None
    fill_hours: float | None
    """Wall time of filling the pool, before training begins."""
    wall_hours: float | None
    """From the first image to the last step, the filling of a pool included."""
    waiting_share: float | None
    """Of the trainer's time, for want of images."""
    stream_bytes: int | None
    """Through the trainer's network card, in all."""
    stream_bytes_per_second: float | None
    memory_bytes: int
    """For groups in the trainer's memory: the window, and the ring where groups are used again."""
    disk_bytes: int
    """For the pool's pictures."""


def size_fresh(schedule: Schedule, fleet: Fleet) -> Sizing:
    """Online training. Without a number of generators, as many as keep the trainer from waiting."""
    groups_generated = math.ceil(schedule.groups_trained / schedule.max_reuse)
    images_generated = groups_generated * schedule.views
    images_trained = schedule.groups_trained * schedule.views
    generators = fleet.generator_gpus
    if generators is None:
        wanted = (fleet.trainer_rate or 0.0) * fleet.trainer_gpus / schedule.max_reuse
        generators = max(1, math.ceil(wanted / fleet.generator_rate - _SLACK))
    generator_hours = images_generated / fleet.generator_rate / 3600
    trainer_hours = _hours(images_trained, fleet.trainer_rate)
    busy = None if trainer_hours is None else trainer_hours / fleet.trainer_gpus
    wall = generator_hours / generators if busy is None else max(busy, generator_hours / generators)
    batches = WINDOW_BATCHES + (RING_BATCHES if schedule.max_reuse > 1 else 0)
    return Sizing(
        images_trained=images_trained,
        images_generated=images_generated,
        mean_uses=images_trained / images_generated,
        steps=_steps(schedule),
        generator_gpus=generators,
        generator_gpu_hours=generator_hours,
        trainer_gpus=fleet.trainer_gpus,
        trainer_gpu_hours=trainer_hours,
        fill_hours=None,
        wall_hours=wall,
        waiting_share=None if busy is None else 1 - busy / wall,
        stream_bytes=images_generated * schedule.image_bytes,
        stream_bytes_per_second=images_generated * schedule.image_bytes / (wall * 3600),
        memory_bytes=batches * schedule.batch_groups * schedule.views * schedule.image_bytes,
        disk_bytes=0,
    )


def size_pool(
    schedule: Schedule, fleet: Fleet, *, images_per_caption: int, picture_bytes: float | None = None
) -> Sizing:
    """Training from a pool that is filled first. `picture_bytes`: of a stored picture, without it
    uncompressed."""
    images_generated = schedule.captions * images_per_caption
    images_trained = schedule.groups_trained * schedule.views
    generators = fleet.generator_gpus or 1
    generator_hours = images_generated / fleet.generator_rate / 3600
    trainer_hours = _hours(images_trained, fleet.trainer_rate)
    fill_hours = generator_hours / generators
    return Sizing(
        images_trained=images_trained,
        images_generated=images_generated,
        mean_uses=images_trained / images_generated,
        steps=_steps(schedule),
        generator_gpus=generators,
        generator_gpu_hours=generator_hours,
        trainer_gpus=fleet.trainer_gpus,
        trainer_gpu_hours=trainer_hours,
        fill_hours=fill_hours,
        wall_hours=None if trainer_hours is None else fill_hours + trainer_hours / fleet.trainer_gpus,
        waiting_share=None,
        stream_bytes=None,
        stream_bytes_per_second=None,
        memory_bytes=WINDOW_BATCHES * schedule.batch_groups * schedule.views * schedule.image_bytes,
        disk_bytes=math.ceil(images_generated * (picture_bytes or schedule.image_bytes)),
    )


def _steps(schedule: Schedule) -> int:
    return -(-schedule.groups_trained // schedule.batch_groups)


def _hours(images: int, rate: float | None) -> float | None:
    return None if rate is None else images / rate / 3600
