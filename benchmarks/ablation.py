"""The paper's ablations on the embedded model: which of its directions are seen here as well?

    streamrep pool ─→ superset, pools of guided images     ablations(visits): arms = label and trial
                                     └──────────┬──────────────────┘
          run, one a trial and seed ←───────────┘
               └─→ runs.jsonl ─→ benchmarks/results/ablation_NAME.json ─→ docs/ablations.md, docs/images/

Names: l (images a caption), m (positives a caption), guidance, objective, reuse, augmentation, or all. A
run that has ended is in ablations.jsonl of the folder, under a key of all that decides it: it is not
repeated, and ablations that have it in common share it. The superset is that of `bench modes`.

Usage: streamrep bench ablation NAME [--captions 300] [--visits 40] [--seeds 3] [--processes 1]
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.ablation_arms import POOL, POOLS, USES, VIEWS, Ablation, Trial, ablations
from benchmarks.ablation_page import read_results, write_page
from benchmarks.ablation_paper import claims_of
from benchmarks.ablation_run import Pools, config_of
from benchmarks.ablation_table import claims_table, compare, judge, table
from benchmarks.ended import EndedRuns, Row, Run, complete
from benchmarks.environment import environment
from benchmarks.student import seed_count
from benchmarks.superset import choose_captions, digest_at, fill
from launcher.command_line import split
from launcher.run_file import RunFile
from protocol.identity import digest_of

NAMES = tuple(ablations(USES[-1]))
JUDGING_STEPS = 40
"""Training steps that take about as long as judging an encoder."""


def main(argv: Sequence[str]) -> int:
    """Draws, trains, judges what is missing; prints tables, writes JSON, plots and the page."""
    words, overrides = split(list(argv))
    options = _parser().parse_args(words)
    pools = Pools(
        folder=options.folder,
        captions=tuple(choose_captions(options.captions)),
        images_a_caption=max(options.visits * VIEWS, *POOLS),
        guided_images_a_caption=POOL,
    )
    every = ablations(options.visits)
    wanted = every if options.name == "all" else {options.name: every[options.name]}
    trials = [trial for ablation in wanted.values() for trial in ablation.trials.values()]
    # Before minutes are spent on pools: what can't be trained is refused here.
    configs = {trial: config_of(overrides, trial, 0, options.captions) for trial in trials}
    for guidance in dict.fromkeys(trial.guidance for trial in trials):
        count = pools.count_of(guidance)
        fill(pools.folder_of(guidance), pools.captions, count, VIEWS, guidance)
    runs = {name: _runs(ablation, pools, configs, options.seeds) for name, ablation in wanted.items()}
    ended = EndedRuns(options.folder / "ablations.jsonl")
    complete(ended, pools, [run for rows in runs.values() for run in rows], options.processes)
    options.out_dir.mkdir(parents=True, exist_ok=True)
    for name, ablation in wanted.items():
        result = _result(name, ablation, [ended.row(run.key) for run in runs[name]], pools, options)
        path = options.out_dir / f"ablation_{name}.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        shown = [result["question"], *map(table, result["parts"]), claims_table(result["claims"]), ""]
        print("\n\n".join(shown))
    page = write_page(options.docs, options.out_dir, read_results(options.out_dir, NAMES))
    print(f"written to {options.out_dir} and {page}")
    return 0


def _runs(ablation: Ablation, pools: Pools, configs: Mapping[Trial, RunFile], seeds: int) -> list[Run]:
    """The runs of an ablation, arm by arm; those that other ablations have as well have the same key."""
    digests = {
        trial.guidance: digest_at(pools.folder_of(trial.guidance)) for trial in ablation.trials.values()
    }
    runs = []
    for label, trial in ablation.trials.items():
        served = trial.source not in ("drawings", "untrained")
        for seed in range(seeds):
            config = configs[trial]
            config = msgspec.structs.replace(config, run=msgspec.structs.replace(config.run, seed=seed))
            decides = {
                "run": msgspec.to_builtins(config),
                "captions": list(pools.captions),
                "pictures": digests[trial.guidance] if served else "",
                "served": [trial.source, trial.pool_images, trial.reuse],
            }
            run = Run(
                key=digest_of(decides),
                label=f"{label}, seed {seed}",
                words=(config, trial),
                cost=config.run.max_steps + JUDGING_STEPS,
                about={"seed": seed},
            )
            runs.append(run)
    return runs


def _result(name: str, ablation: Ablation, rows: list[Row], pools: Pools, options: argparse.Namespace) -> Row:
    labels = [label for label in ablation.trials for _ in range(options.seeds)]
    rows = [{"arm": label, **row} for label, row in zip(labels, rows, strict=True)]
    rows_of = {label: [row for row in rows if row["arm"] == label] for label in ablation.trials}
    claims = claims_of(name, options.visits * VIEWS)
    return {
        "question": ablation.question,
        "about": ablation.about,
        "captions": len(pools.captions),
        "visits": options.visits,
        "views": VIEWS,
        "seeds": options.seeds,
        "parts": [compare(part, rows_of) for part in ablation.parts],
        "claims": [judge(claim, rows_of) for claim in claims],
        "arms": msgspec.to_builtins(ablation.trials),
        "runs": rows,
        "environment": environment(),
    }


def _visits(text: str) -> int:
    if int(text) < 1 or int(text) % USES[-1]:
        raise argparse.ArgumentTypeError(f"expected a multiple of {USES[-1]}, the most uses, got {text}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("name", choices=[*NAMES, "all"], metavar="NAME", help=", ".join(NAMES) + ", or all")
    add("--captions", type=int, default=300, help="of the embedded ones")
    add("--visits", type=_visits, default=40, help="of a caption, with 3 images each; a multiple of 8")
    add("--seeds", type=seed_count, default=3, help="runs of each arm; at least 2, for intervals")
    add("--processes", type=int, default=1, help="runs at a time, each on a core of its own")
    add("--folder", type=Path, default=Path("runs/modes"), help="of the pools and the runs that have ended")
    add("--out-dir", type=Path, default=Path("benchmarks/results"), help="of the JSON files")
    add("--docs", type=Path, default=Path("docs"), help="of ablations.md and images/")
    return parser
