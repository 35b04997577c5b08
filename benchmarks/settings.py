"""What would these trainer settings make of a perfect generator? The learner of a run file on real drawings.

Each view is a drawing of its caption, placed at random, never repeated: an upper bound on what the same steps
can learn from generated images, in minutes and without a generator.

Usage: streamrep bench settings [RUN.toml] [--steps N] [--train.lr 2e-3 ...]
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.environment import environment
from benchmarks.retrieval import train_on_drawings
from launcher.command_line import split
from launcher.run_file import load
from trainer.evaluation.evaluate import Evaluation
from trainer.learner import Learner

RESULT = Path("benchmarks/results/settings.json")


def main(argv: Sequence[str]) -> int:
    """Trains, judges, prints a table, writes JSON."""
    words, overrides = split(list(argv))
    parser = argparse.ArgumentParser(
        prog="streamrep bench settings", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("run_file", nargs="?", type=Path, metavar="RUN.toml")
    parser.add_argument(
        "--steps", type=int, default=200, help="optimizer steps; the schedule is fitted to them"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(words)
    config = load(options.run_file, [*overrides, "--run.max_steps", str(options.steps)])
    began = time.monotonic()

    def say(step: int, excess: float) -> None:
        if step % 20 == 0 or step == options.steps:
            left = (time.monotonic() - began) / step * (options.steps - step)
            print(f"step {step}/{options.steps}, excess {excess:.3f}, {left:.0f} s left", file=sys.stderr)

    untrained = Learner(config)
    evaluation = Evaluation(config.eval, config.augment.crop_size, untrained.device)
    rows = {"untrained": evaluation.evaluate(untrained.encode)}
    cpu = time.process_time()
    trained = train_on_drawings(config, options.steps, say)
    seconds = time.process_time() - cpu
    rows["trained on real drawings"] = evaluation.evaluate(trained.encode)
    for name, row in rows.items():
        print(f"{name:26}", " ".join(f"{key} {value:.4f}" for key, value in row.items()))
    print(f"{options.steps * config.batch_images / seconds:.0f} images a second of processor time")
    result = {
        "question": "what the settings learn from real drawings",
        "run": msgspec.to_builtins(config),
        "rows": rows,
        "processor_seconds": seconds,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    return 0
