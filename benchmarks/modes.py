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
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.arms import Arm, arms_of
from benchmarks.ended import EndedRuns, Run, complete
from benchmarks.environment import environment
from benchmarks.intervals import write_intervals
from benchmarks.modes_run import VIEWS, Job
from benchmarks.modes_table import CHANCES, compare, tables
from benchmarks.student import seed_count
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
    pairs = [
        (arm, seed) for seed in range(options.seeds) for arm in arms_of(options.visits, POOLS, REUSE, VIEWS)
    ]
    config = load(None, ["--generation.views", str(VIEWS), *overrides])
    fill(options.folder, captions, images, VIEWS)
    superset = read(options.folder, captions, images)
    runs, ended = _runs(config, superset, pairs), EndedRuns(options.folder / "runs.jsonl")
    job = Job(config, options.folder, tuple(captions), images)
    complete(ended, job, runs, options.processes)
    rows = [ended.row(run.key) for run in runs]
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


def _runs(config: RunFile, superset: Superset, pairs: Sequence[tuple[Arm, int]]) -> list[Run]:
    base = {"superset": superset.digest, "run": msgspec.to_builtins(config)}
    return [
        Run(
            key=digest_of({**base, "arm": msgspec.to_builtins(arm), "seed": seed}),
            label=f"{arm.name}, seed {seed}",
            words=(arm, seed),
            about={"arm": arm.name, "kind": arm.kind, "seed": seed},
        )
        for arm, seed in pairs
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench modes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--captions", type=int, default=300, help="of the embedded ones")
    add("--visits", type=int, default=40, help="of a caption, with 3 images each; that many are drawn")
    add("--seeds", type=seed_count, default=5, help="runs of each arm; at least 2, for intervals")
    add("--processes", type=int, default=1, help="runs at a time, each on a core of its own")
    add(
        "--folder", type=Path, default=Path("runs/modes"), help="of the superset and the runs that have ended"
    )
    add("--out", type=Path, default=RESULT)
    add("--picture", type=Path, default=PICTURE)
    return parser
