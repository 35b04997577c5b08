"""Pool, fresh stream or replay: what do an encoder's images have to be?

    streamrep pool ─→ superset: C captions x M images, drawn once
                          │ served(arm, visit): which images
    plan of tickets ──────┴─→ Learner, one run an arm and seed ─→ Evaluation ─→ runs.jsonl ─→ tables

The arms of a seed start from the same weights, visit the same captions in the same order and augment the
n-th image alike; they differ only in which image of the caption it is, so that each seed is one pair of every
two arms. The last arms train for fewer steps: they draw about as many images as the largest pool, and as the
replay. A run that has ended is in runs.jsonl, and is not repeated.

Usage: streamrep bench modes [--captions 300] [--visits 40] [--seeds 5] [--processes 1]
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.arms import Arm, arms_of
from benchmarks.environment import environment
from benchmarks.intervals import write_intervals
from benchmarks.modes_run import VIEWS, Job
from benchmarks.modes_table import CHANCES, compare, tables
from benchmarks.superset import Superset, choose_captions, fill, read
from launcher.command_line import split
from launcher.run_file import RunFile, load
from protocol.identity import digest_of

RESULT = Path("benchmarks/results/modes.json")
PICTURE = Path("docs/images/modes.svg")
POOLS = (1, 2, 4, 10)
REUSE = 4


def main(argv: Sequence[str]) -> int:
    """Draws, trains, judges what is missing; prints tables, writes JSON and a plot."""
    words, overrides = split(list(argv))
    options = _parser().parse_args(words)
    captions, images = choose_captions(options.captions), options.visits * VIEWS
    runs = [
        (arm, seed) for seed in range(options.seeds) for arm in arms_of(options.visits, POOLS, REUSE, VIEWS)
    ]
    config = load(None, ["--generation.views", str(VIEWS), *overrides])
    fill(options.folder, captions, images, VIEWS)
    superset = read(options.folder, captions, images)
    ended = _Ended(options.folder / "runs.jsonl", config, superset)
    missing = [(arm, seed) for arm, seed in runs if not ended.has(arm, seed)]
    job = Job(config, options.folder, tuple(captions), images)
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as processes:
        began = time.monotonic()
        waiting = {processes.submit(job, arm, seed): (arm, seed) for arm, seed in missing}
        for number, done in enumerate(as_completed(waiting), start=1):
            arm, seed = waiting[done]
            ended.add(arm, seed, done.result())
            left = (time.monotonic() - began) / number * (len(missing) - number)
            text = f"{number} of {len(missing)} runs: {arm.name}, seed {seed}, {left:.0f} s left"
            print(text, file=sys.stderr, flush=True)
    rows = [ended.row(arm, seed) for arm, seed in runs]
    result = {
        "question": "what images an encoder has to be trained on: a pool's, fresh ones, or replayed ones",
        "captions": len(captions),
        "images_a_caption": images,
        "views": VIEWS,
        "superset": superset.digest,
        "fill_seconds": superset.fill_seconds,
        "picture_bytes": superset.picture_bytes,
        "run": msgspec.to_builtins(config),
        "arms": compare(rows, superset),
        "runs": rows,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    write_intervals(options.picture, result["arms"], CHANCES)
    print(tables(result["arms"]))
    print(f"written to {options.out} and {options.picture}")
    return 0


class _Ended:
    """Runs that have ended, a line each, under a key of all that decides them."""

    def __init__(self, path: Path, config: RunFile, superset: Superset) -> None:
        self._path = path
        self._base = {"superset": superset.digest, "run": msgspec.to_builtins(config)}
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        # A line that was cut off by a kill is a run that has not ended.
        whole = [line for line in lines if line.endswith("}")]
        self._rows = {row["key"]: row for row in map(json.loads, whole)}

    def _key(self, arm: Arm, seed: int) -> str:
        return digest_of({**self._base, "arm": msgspec.to_builtins(arm), "seed": seed})

    def has(self, arm: Arm, seed: int) -> bool:
        return self._key(arm, seed) in self._rows

    def row(self, arm: Arm, seed: int) -> dict[str, Any]:
        found: dict[str, Any] = self._rows[self._key(arm, seed)]
        return found

    def add(self, arm: Arm, seed: int, found: dict[str, Any]) -> None:
        row = {"key": self._key(arm, seed), "arm": arm.name, "kind": arm.kind, "seed": seed, **found}
        self._rows[row["key"]] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row))


def _seeds(text: str) -> int:
    if int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2, for intervals, got {text}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench modes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--captions", type=int, default=300, help="of the embedded ones")
    add("--visits", type=int, default=40, help="of a caption, with 3 images each; that many are drawn")
    add("--seeds", type=_seeds, default=5, help="runs of each arm; at least 2, for intervals")
    add("--processes", type=int, default=1, help="runs at a time, each on a core of its own")
    add(
        "--folder", type=Path, default=Path("runs/modes"), help="of the superset and the runs that have ended"
    )
    add("--out", type=Path, default=RESULT)
    add("--picture", type=Path, default=PICTURE)
    return parser
