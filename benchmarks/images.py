"""Images a second of this project's engines beside the stock diffusers pipeline, in one process, in turns.

    stock, a caption at a time:  pipe(caption, num_images_per_prompt=views, generator=[...])
    stock, the same batch:       pipe([caption, ...], generator=[...]) of as many images as the static batch
    engines:                     Engine.draw of a full static batch

All in one dtype, with the same captions, seeds, sampler, steps and guidance. The share of the roofline is the
FLOPs of one image, counted on a forward pass, times images a second, over the measured rate of a large
matrix product in the same dtype on the same device and threads. Joules an image are told where the driver
tells them: NVML (package nvidia-ml-py), or Linux's powercap of the CPUs, idle cores included. A machine whose
speed wavers hides small differences: rounds take turns, and medians are reported.

With `--architecture` there are no weights: the folder is made with random ones, and the result says so.

Usage: streamrep bench images [--model embedded | --architecture sd15] [--engines eager,compile] [--rounds 5]
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.architectures import ARCHITECTURES, make_architecture
from benchmarks.environment import environment
from protocol.generation import GenerationSpec

RESULT = Path("benchmarks/results/images.json")


def main(argv: Sequence[str]) -> int:
    """Measures, prints a table, writes JSON and a plot."""
    options = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if options.architecture:
            print(f"making {options.architecture} with random weights", flush=True)
            model = str(make_architecture(options.architecture, Path(folder)))
        rows = [row for spec in _specs(options) for row in _measure(options, model, spec)]
    result = {
        "question": "images a second of the engines over the stock diffusers pipeline",
        "model": options.architecture or options.model,
        "weights": "random: architecture speed, not a recipe" if options.architecture else "the model's own",
        "rows": rows,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    from benchmarks.bars import write_bars

    plot = options.out.with_suffix(".svg")
    write_bars(plot, [(_label(row), row["images_per_second"]) for row in rows], "images a second")
    print("\n".join(_table(rows)))
    print(f"{result['model']}, weights: {result['weights']}; written to {options.out} and {plot}")
    return 0


def _measure(options: argparse.Namespace, model: str, spec: GenerationSpec) -> list[dict[str, Any]]:
    from benchmarks.images_measured import Contest

    contest = Contest(options, model, spec)
    rounds: dict[str, list[float]] = {name: [] for name in contest.contestants}
    for number in range(1, options.rounds + 1):
        for name in contest.contestants:
            rounds[name].append(contest.rate(name, options.seconds))
            print(
                f"{spec.size}px, {spec.steps} steps, round {number} of {options.rounds}: {name}"
                f" {rounds[name][-1]:.2f} images/s",
                flush=True,
            )
    stock = statistics.median(rounds["stock, same batch"])
    users = statistics.median(rounds["stock, a caption at a time"])
    rows = []
    for name, rates in rounds.items():
        rate = statistics.median(rates)
        rows.append(
            {
                "contestant": name,
                "size": spec.size,
                "steps": spec.steps,
                "guidance": list(spec.guidance),
                "sampler": spec.sampler,
                "batch_images": contest.batch_images,
                "precision": contest.precision,
                "images_per_second": rate,
                "rounds": rates,
                "over_stock_same_batch": rate / stock,
                "over_stock_as_users_call_it": rate / users,
                "roofline_share": rate * contest.flops_per_image / contest.product_flops_per_second,
                "gflops_per_image": contest.flops_per_image / 1e9,
                "product_gflops_per_second": contest.product_flops_per_second / 1e9,
                "peak_bytes": contest.peak_bytes(name),
                "joules_per_image": contest.joules_per_image(name),
                "mean_levels_off_stock": contest.levels_off(name),
            }
        )
    return rows


def _specs(options: argparse.Namespace) -> list[GenerationSpec]:
    return [
        GenerationSpec(
            views=options.views, size=size, steps=steps, guidance=(guidance,), sampler=options.sampler
        )
        for size in options.sizes
        for steps in options.steps
        for guidance in options.guidance
    ]


def _label(row: dict[str, Any]) -> str:
    return f"{row['contestant']}, {row['size']}px, {row['steps']} steps, guidance {row['guidance'][0]:g}"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"{'':58} {'images/s':>9} {'batch':>6} {'user':>6} {'roof':>6} {'off':>5} {'peak MB':>8} {'J':>7}"
    ]
    for row in rows:
        joules = "-" if row["joules_per_image"] is None else f"{row['joules_per_image']:.3f}"
        lines.append(
            f"{_label(row):58} {row['images_per_second']:9.2f} {row['over_stock_same_batch']:5.2f}x"
            f" {row['over_stock_as_users_call_it']:5.2f}x {row['roofline_share']:6.1%}"
            f" {row['mean_levels_off_stock']:5.2f} {row['peak_bytes'] / 1e6:8.0f} {joules:>7}"
        )
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench images", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--model", default="embedded", help="embedded, a folder, or owner/name on the hub")
    parser.add_argument(
        "--architecture", choices=list(ARCHITECTURES), help="random weights instead of a model"
    )
    parser.add_argument("--engines", type=_words, default=["eager"], help="comma-separated; compile is built")
    parser.add_argument("--engine-cache", default="runs/.engines")
    parser.add_argument("--sizes", type=_numbers, default=[64], help="pixels, comma-separated")
    parser.add_argument("--steps", type=_numbers, default=[1], help="comma-separated")
    parser.add_argument("--guidance", type=_scales, default=[1.0], help="comma-separated; 1 is none")
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--batch-images", type=int, default=48)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each contestant, each round, at least")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _scales(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
