"""Where the time of a training step goes, and what a batch costs.

    streamrep pool ─→ pool of the fake engine's pictures
    fresh process  ─→ trainer.train on it, under cProfile      shares: encoder, augmentation, rest
    fresh process  ─→ a Learner and batches of N groups        seconds a step, peak memory; one process an N

The rest is everything between two steps and around them: batches, ledger, metrics, checkpoints, TensorBoard.
The time that the trainer waits for pictures is left out, and nothing is evaluated. Target: 90% of the time
that is not augmentation is in forward pass, backward pass and optimizer.

Usage: streamrep bench step [RUN.toml] [--steps 150] [--batches 8,16,32,64] [--train.micro_batch 64 ...]
   The paper's batch: streamrep bench step examples/recipes/cc12m_1x.toml --captions.source embedded --steps 0
                      --batches 1376 --warm-up 0 --timed 1
"""

import argparse
import cProfile
import json
import multiprocessing
import pstats
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.decode import TRAINED_SIZE, fill, pool_words
from benchmarks.environment import environment
from benchmarks.groups import group_of
from launcher.command_line import split
from launcher.run_file import RunFile, load, to_tables

RESULT = Path("benchmarks/results/step.json")
TARGET = 0.90
_SHARE = "share_of_learning_without_augmentation"


def main(argv: Sequence[str]) -> int:
    """Measures, prints, writes JSON; exit code 1 where the target is missed."""
    words, overrides = split(list(argv))
    options = _parser().parse_args(words)
    with tempfile.TemporaryDirectory(prefix="streamrep-") as name:
        run_words = _run_words(Path(name), options.steps)
        if options.steps:
            pool = fill(Path(name), TRAINED_SIZE)
            overrides += pool_words(Path(name), pool, TRAINED_SIZE)
        config = load(options.run_file, [*overrides, *run_words])
        shares = _shares(config) if options.steps else {}
        rows = [_row(config, groups, options) for groups in options.batches]
    result = {
        "question": "where the time of a training step goes, and what a batch costs",
        **shares,
        "batches": rows,
        "run": msgspec.to_builtins(config),
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    return 0 if shares.get(_SHARE, 1.0) >= TARGET else 1


def _shares(config: RunFile) -> dict[str, Any]:
    shares = _in_process(_profile, config)
    print(
        f"of {shares['seconds']:.1f} s: forward, backward and optimizer {shares['learning']:.1%},"
        f" augmentation {shares['augmentation']:.1%}, the rest {shares['rest']:.1%}"
    )
    share = shares["learning"] / (shares["learning"] + shares["rest"])
    print(f"without augmentation {share:.1%} in forward, backward and optimizer (target {TARGET:.0%})")
    return {"shares": shares, _SHARE: share, "target": TARGET}


def _row(config: RunFile, groups: int, options: argparse.Namespace) -> dict[str, Any]:
    print(f"{groups} groups: {options.warm_up} steps and {options.timed} timed ones", flush=True)
    cost = _in_process(_cost, config, groups, options.warm_up, options.timed)
    row = {"batch_groups": groups, **cost}
    print(
        f"{groups} groups, {row['images']} images: {1000 * row['step_seconds']:.0f} ms,"
        f" {row['images'] / row['step_seconds']:.0f} images a second, {row['peak_bytes'] / 1e9:.2f} GB",
        flush=True,
    )
    return row


def _in_process(work: Any, *arguments: Any) -> dict[str, Any]:
    """What `work` puts into its pipe, in a process that ends with it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(there, *arguments))
    process.start()
    there.close()
    try:
        found: dict[str, Any] = here.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"the measuring process ended with code {process.exitcode}; see above") from None
    process.join()
    return found


def _profile(pipe: Any, config: RunFile) -> None:
    """Trains, and sends the shares of the loop's time."""
    from trainer.trainer import train

    profile = cProfile.Profile()
    profile.runcall(train, config, threading.Event(), to_tables(config))
    seconds: dict[tuple[str, str], float] = {}
    for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]  # typeshed lacks it
        key = ("/".join(Path(file).parts[-2:]), function)
        seconds[key] = seconds.get(key, 0.0) + cumulative
    loop = seconds["trainer/loop.py", "run"]
    waited = seconds["trainer/loop.py", "_next_batch"]
    learner = seconds["trainer/learner.py", "step"]
    augmentation = seconds["trainer/augment.py", "__call__"]
    total = loop - waited
    pipe.send(
        {
            "steps": config.run.max_steps,
            "seconds": total,
            "learning": (learner - augmentation) / total,
            "augmentation": augmentation / total,
            "rest": (total - learner) / total,
            "waited_seconds": waited,
        }
    )


def _cost(pipe: Any, config: RunFile, groups: int, warm_up: int, timed: int) -> None:
    """Steps on random pixels of that many groups, and sends what one takes."""
    import torch

    from trainer.batch import Batch
    from trainer.captions import load_captions
    from trainer.learner import Learner
    from trainer.plan import Plan

    config = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, batch_groups=groups))
    plan = Plan(load_captions(config.captions), 0, config.generation)
    shape = (config.generation.views, config.generation.size, config.generation.size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    drawn = tuple(group_of(plan.ticket(i), pixels, "pool") for i in range(groups))
    learner = Learner(config)
    on_cuda, seconds = learner.device.type == "cuda", []
    for step in range(1, warm_up + timed + 1):
        began = time.perf_counter()
        learner.step(Batch(step=step, groups=drawn, uses=(1,) * groups))
        seconds.append(time.perf_counter() - began)
    # Of a CPU it is the process's: the interpreter and the libraries count as well.
    peak = torch.cuda.max_memory_allocated() if on_cuda else _peak_bytes()
    pipe.send(
        {
            "images": config.batch_images,
            "step_seconds": statistics.median(seconds[warm_up:]),
            "peak_bytes": peak,
        }
    )


def _peak_bytes() -> int:
    """Most memory that this process had at any time; Linux counts it in kilobytes, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _run_words(folder: Path, steps: int) -> list[str]:
    words = ["--run.dir", str(folder), "--run.name", "step", "--eval.sets", "[]"]
    return [*words, "--run.mode", "offline", "--run.max_steps", str(steps)] if steps else words


def _batches(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run_file", nargs="?", type=Path, metavar="RUN.toml", help="the embedded run without it")
    add("--steps", type=int, default=150, help="trained under the profiler; 0 leaves that out")
    add("--batches", type=_batches, default=[8, 16, 32, 64], help="groups in a batch, of each measurement")
    add("--warm-up", type=int, default=2, help="steps before those that are timed")
    add("--timed", type=int, default=8, help="steps of each batch, whose median counts")
    add("--out", type=Path, default=RESULT)
    return parser
