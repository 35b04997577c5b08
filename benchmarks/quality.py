"""How much quality does speed cost? Ways to draw, judged by their images and by what encoders learn of them.

    settings ─ eager engine ─→ C captions x M images ─┬─ images a second
    (steps, guidance, decoder, precision)             ├─ judge: name R@10 (fidelity), Vendi score (diversity)
    real drawings, placed ────────────────────────────┴─ Learner, a fixed number of steps ─→ Evaluation: R@10

All settings draw the same captions from the same seeds, and the encoders of a seed start alike and see the
same captions in the same order. By default one factor at a time is changed from the run file's own setting,
and a few combinations are added; --grid takes all of them. What is done is kept in --folder.

Usage: streamrep bench quality [--grid] [--steps 1,2,4] [--decoders own,embedded-tiny] [--seeds 2]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.ended import EndedRuns, Run, complete
from benchmarks.environment import environment
from benchmarks.quality_design import OWN, TINY, Axes, Setting, full_grid, one_at_a_time
from benchmarks.superset import choose_captions
from launcher.command_line import split
from launcher.run_file import RunFile, load
from protocol.errors import UserError
from protocol.identity import digest_of

RESULT = Path("benchmarks/results/quality.json")
PICTURE = Path("docs/images/quality.svg")


def main(argv: Sequence[str]) -> int:
    """Draws, trains, judges what is missing; prints a table, writes JSON and a plot."""
    words, overrides = split(list(argv))
    options = _parser().parse_args(words)
    from benchmarks.quality_images import VIEWS, Draw  # torch: --help answers at once without

    if options.images % VIEWS:
        raise _refusal("images come in groups", f"a multiple of {VIEWS}", options.images, "--images")
    config = load(None, ["--generation.views", str(VIEWS), *overrides])
    captions = tuple(choose_captions(options.captions))
    base = _base(config)
    axes = Axes(
        steps=options.steps,
        guidance=options.guidance,
        decoders=options.decoders,
        precisions=options.precisions,
    )
    settings = (full_grid if options.grid else one_at_a_time)(base, axes)
    draw = Draw(config, options.folder, captions, options.images)
    entries = _measure(options, config, draw, settings)
    result = {
        "question": "what steps, guidance, decoder and precision cost in speed, and give in quality",
        "captions": len(captions),
        "images_a_caption": options.images,
        "judge_steps": options.judge_steps,
        "train_steps": options.train_steps,
        "seeds": options.seeds,
        "run": msgspec.to_builtins(config),
        "settings": entries,
        "environment": environment(),
    }
    from benchmarks.quality_table import table, write_picture

    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    write_picture(options.picture, entries)
    print(table(entries))
    print(f"written to {options.out} and {options.picture}")
    return 0


def _measure(
    options: argparse.Namespace, config: RunFile, draw: Any, settings: Sequence[Setting]
) -> list[dict[str, Any]]:
    """An entry a setting, and one of real drawings."""
    from benchmarks.quality_images import drawings_of, load_images, save_images
    from benchmarks.quality_judge import train_judge
    from benchmarks.quality_table import REAL, entry_of
    from benchmarks.quality_train import Train
    from trainer.evaluation.drawings import load_drawings

    drawings = load_drawings().of(held_out=False)
    judge = train_judge(config, drawings, options.judge_steps, options.folder)
    ended = EndedRuns(options.folder / "runs.jsonl")
    draws = [
        Run(
            key=draw.key(setting),
            label=setting.label,
            words=(setting,),
            cost=setting.cost,
            about={"setting": msgspec.to_builtins(setting)},
        )
        for setting in settings
    ]
    complete(ended, draw, draws, 1)
    sources = {run.label: run.key for run in draws}
    sources[REAL] = digest_of({"drawings": draw.captions, "images": options.images, "seed": config.run.seed})
    placed = drawings_of(drawings, draw.captions, options.images, config.run.seed)
    save_images(draw.path(sources[REAL]), placed)
    train = Train(config, draw.captions, options.train_steps)
    trainings = {
        (label, seed): Run(
            key=digest_of(
                {
                    "images": key,
                    "seed": seed,
                    "steps": options.train_steps,
                    "run": msgspec.to_builtins([config.model, config.train, config.augment, config.eval]),
                }
            ),
            label=f"encoder of {label}, seed {seed}",
            words=(draw.path(key), seed),
            about={"images": label, "seed": seed},
        )
        for seed in range(options.seeds)
        for label, key in sources.items()
    }
    complete(ended, train, list(trainings.values()), options.processes)
    entries = []
    for label, key in sources.items():
        drawn = {} if label == REAL else {k: ended.row(key)[k] for k in ("images_per_second", "draw_seconds")}
        scores = judge.score(draw.captions, load_images(draw.path(key)))
        rows = [ended.row(trainings[label, seed].key) for seed in range(options.seeds)]
        entries.append(entry_of(label, drawn, scores, rows) | {"trainings": rows})
    return entries


def _base(config: RunFile) -> Setting:
    """The run file's own way to draw."""
    from generator_service.devices import resolve_device, resolve_dtype

    dtype = resolve_dtype(config.generator.precision, resolve_device(config.generator.device))
    return Setting(
        steps=config.generation.steps,
        guidance=config.generation.guidance[0],
        decoder=config.generator.decoder or OWN,
        precision=str(dtype).removeprefix("torch."),
    )


def _refusal(what: str, expected: str, got: object, where: str) -> UserError:
    return UserError(what, expected=expected, got=str(got), where=where, mend="choose another number")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=_numbers, default=(1, 2, 4), help="comma-separated")
    add("--guidance", type=_scales, default=(1.0, 2.0), help="comma-separated; 1 is none")
    add(
        "--decoders",
        type=_words,
        default=(OWN, TINY),
        help=f"`{OWN}`, or as generator.decoder; comma-separated",
    )
    add("--precisions", type=_words, default=("bfloat16", "float32"), help="comma-separated")
    add("--grid", action="store_true", help="all combinations, not one factor at a time")
    add("--captions", type=int, default=100, help="of the embedded ones")
    add("--images", type=int, default=9, help="of a caption, drawn with each setting")
    add("--judge-steps", type=int, default=900, help="that the judge is trained on real drawings")
    add("--train-steps", type=int, default=240, help="of each encoder that is trained on the images")
    add("--seeds", type=int, default=2, help="encoders trained on each setting's images")
    add("--processes", type=int, default=1, help="encoders trained at a time, each on a core of its own")
    add("--folder", type=Path, default=Path("runs/quality"), help="of images and results so far")
    add("--out", type=Path, default=RESULT)
    add("--picture", type=Path, default=PICTURE)
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _scales(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))
