"""`streamrep plan`: hours, GPUs and bytes of a schedule, fresh or from a pool."""

import argparse
import dataclasses
import json
import math
from typing import Any

from launcher.command_line import OneLineParser
from launcher.errors import RunFileError
from launcher.sizing import Fleet, Schedule, Sizing, size_fresh, size_pool

EPILOG = """\
Without options of the schedule it is StableRep's first one on CC12M: 10 million captions, 15 epochs, 6 images
a caption at 256 pixels, 1,376 captions a batch. Measure the rates on the machines that you will use:
a generator's with `streamrep bench stream`, a trainer's as images_per_second in metrics.jsonl of a short run
in which waiting_share is 0.

  streamrep plan --generator-rate 600                      fresh, every image trained on once
  streamrep plan --generator-rate 600 --max-reuse 9        fresh, each nine times
  streamrep plan --generator-rate 1.25 --pool 10           a pool of 10 images a caption
"""
UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def plan(argv: list[str]) -> int:
    """Prints what the words after `plan` ask for; returns the exit code. Raises UserError."""
    words = _parser().parse_args(argv)
    schedule = Schedule(
        captions=words.captions,
        epochs=words.epochs,
        views=words.views,
        batch_groups=words.batch_groups,
        size=words.size,
        max_reuse=words.max_reuse,
    )
    fleet = Fleet(
        generator_rate=words.generator_rate,
        trainer_rate=words.trainer_rate,
        generator_gpus=words.generator_gpus,
        trainer_gpus=words.trainer_gpus,
    )
    if words.pool is None:
        sizing = size_fresh(schedule, fleet)
    else:
        _check_pool(words.pool, schedule)
        sizing = size_pool(schedule, fleet, images_per_caption=words.pool, picture_bytes=words.picture_bytes)
    print(json.dumps(dataclasses.asdict(sizing), indent=2) if words.json else plan_table(sizing))
    return 0


def plan_table(sizing: Sizing) -> str:
    """A line for each figure that is known."""
    lines = [
        ("images trained", f"{sizing.images_trained:,}"),
        ("images generated", f"{sizing.images_generated:,}"),
        ("uses of an image", f"{sizing.mean_uses:.3g}"),
        ("optimizer steps", f"{sizing.steps:,}"),
        ("generator GPU hours", _hours_text(sizing.generator_gpu_hours)),
        ("trainer GPU hours", _hours_text(sizing.trainer_gpu_hours)),
        ("generator GPUs", f"{sizing.generator_gpus:,}"),
        ("trainer GPUs", f"{sizing.trainer_gpus:,}"),
        ("hours to fill the pool", _hours_text(sizing.fill_hours)),
        ("hours in all", _hours_text(sizing.wall_hours)),
        ("trainer waits", None if sizing.waiting_share is None else f"{sizing.waiting_share:.0%}"),
        ("bytes streamed", _bytes_text(sizing.stream_bytes)),
        ("bytes streamed a second", _bytes_text(sizing.stream_bytes_per_second)),
        ("groups in memory", _bytes_text(sizing.memory_bytes)),
        ("pictures on disk", _bytes_text(sizing.disk_bytes or None)),
    ]
    width = max(len(name) for name, text in lines if text is not None)
    return "\n".join(f"  {name:{width}}  {text}" for name, text in lines if text is not None)


def _check_pool(images_per_caption: int, schedule: Schedule) -> None:
    if schedule.max_reuse != 1:
        raise RunFileError(
            "not with a pool",
            expected="--max-reuse without --pool, whose images are used epochs x views / L times",
            got=f"--max-reuse {schedule.max_reuse} --pool {images_per_caption}",
            where="streamrep plan",
            mend="leave one of them out",
        )
    if images_per_caption < schedule.views:
        raise RunFileError(
            "pool is too small",
            expected=f"at least {schedule.views} images a caption, since a visit takes {schedule.views}"
            " different ones",
            got=str(images_per_caption),
            where="--pool",
            mend="raise it, or lower --views",
        )


def _hours_text(hours: float | None) -> str | None:
    if hours is None:
        return None
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _bytes_text(count: float | None) -> str | None:
    if count is None:
        return None
    power = min(int(math.log(max(count, 1), 1000)), len(UNITS) - 1)
    return f"{count / 1000**power:.3g} {UNITS[power]}"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep plan",
        description="Hours, GPUs and bytes of a schedule, from measured rates.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def add(name: str, kind: Any, text: str, default: Any = None, **more: Any) -> None:
        parser.add_argument(name, type=kind, default=default, metavar="N", help=text, **more)

    add("--generator-rate", _rate, "images a second that one generator GPU draws", required=True)
    add("--trainer-rate", _rate, "images a second that one trainer GPU trains on; without it not reckoned")
    add("--generator-gpus", _count, "generator GPUs (fresh: as many as keep the trainer busy; pool: 1)")
    add("--trainer-gpus", _count, "trainer GPUs (1)", 1)
    add("--captions", _count, "distinct captions (10e6)", 10_000_000)
    add("--epochs", _count, "visits to each caption (15)", 15)
    add("--views", _count, "images trained on at a visit, m (6)", 6)
    add("--batch-groups", _count, "captions in a batch (1376)", 1376)
    add("--size", _count, "side of an image in pixels (256)", 256)
    add("--max-reuse", _count, "trainings on a fresh group (1)", 1)
    add("--pool", _count, "images a caption of a pool that is filled first, l; without it all are fresh")
    add("--picture-bytes", _rate, "bytes of a stored picture (uncompressed)")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _count(text: str) -> int:
    """A positive whole number, also as 10e6."""
    value = _rate(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text}")
    return int(value)


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value
