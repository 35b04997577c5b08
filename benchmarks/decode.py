"""Does a trainer that reads a pool wait for its pictures?

    streamrep pool  ─→ pool of the fake engine's pictures, a folder that is removed afterwards
    this process    ─→ decodes groups of it as a decoding process does               images/s of one process
    streamrep train ─→ trains offline, decoding processes beside it                  share of time it waits

The trainer is the default run's, at 64 pixels. Its first steps, in which the processes start, are left out.
Larger pictures are decoded only: what a process manages tells how many of them (`pool.processes`) a faster
trainer needs. Target: waiting under 1%.

Usage: streamrep bench decode [--steps 200] [--sizes 64,224,512]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from benchmarks.superset import choose_captions
from protocol.errors import UserError
from trainer.pool.decoding import Job, decode
from trainer.pool.files import PoolFiles
from trainer.pool.pool import open_pool

RESULT = Path("benchmarks/results/decode.json")
TARGET = 0.01
CAPTIONS, IMAGES, VIEWS = 60, 12, 4
FIRST_STEPS = 20
TRAINED_SIZE = 64


def main(argv: Sequence[str]) -> int:
    """Measures, prints, writes JSON; exit code 1 where the target is missed."""
    options = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="streamrep-") as folder:
        rows = []
        for size in options.sizes:
            print(f"pictures of {size} pixels", file=sys.stderr, flush=True)
            pool = fill(Path(folder), size)
            rows.append({"size": size, **decode_rate(pool, size, options.seconds)})
            print(
                f"{size} pixels: one process decodes {rows[-1]['images_per_second']:,.0f} images a second,"
                f" {rows[-1]['picture_bytes'] / 1000:.1f} kB each",
                flush=True,
            )
        trained = train(Path(folder), options.steps)
    share = trained["waiting_share"]
    print(
        f"training offline at {trained['images_per_second']:,.0f} images a second, the trainer waited for"
        f" {share:.2%} of the time (target {TARGET:.0%})"
    )
    result = {
        "question": "whether a trainer waits for the pictures of its pool",
        "decoding": rows,
        "training": trained,
        "target": {"waiting_share": TARGET},
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    return 0 if share < TARGET else 1


def fill(folder: Path, size: int) -> Path:
    """A pool of `IMAGES` pictures of each caption."""
    pool = folder / f"pool-{size}"
    source = folder / "captions.txt"
    source.write_text("\n".join(choose_captions(CAPTIONS)) + "\n", encoding="utf-8")
    _streamrep("pool", "--out", str(pool), *pool_words(folder, pool, size))
    return pool


def decode_rate(folder: Path, size: int, seconds: float) -> dict[str, Any]:
    """Images a second of one process over all pictures of the pool, again and again."""
    pool, files = open_pool(folder, max_damaged=0), PoolFiles(folder)
    places = [pool.index.image(row).place for row in range(len(pool.index))]
    jobs = [
        Job(number=i, places=tuple(places[i : i + VIEWS]), count=VIEWS, size=size, exact=True)
        for i in range(0, len(places), VIEWS)
    ]
    for job in jobs:  # so that files and decoders are warm
        decode(job, files)
    began, images = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        answer, _ = decode(jobs[images // VIEWS % len(jobs)], files)
        images += len(answer.used)
    files.close()
    return {"images_per_second": images / elapsed, "picture_bytes": pool.index.bytes / len(pool.index)}


def train(folder: Path, steps: int) -> dict[str, Any]:
    """Rates of an offline run of the default trainer."""
    words = ["--run.mode", "offline", "--run.dir", str(folder), "--run.name", "offline"]
    words += ["--run.max_steps", str(steps), "--train.log_every", str(FIRST_STEPS), "--eval.sets", "[]"]
    _streamrep("train", *pool_words(folder, folder / f"pool-{TRAINED_SIZE}", TRAINED_SIZE), *words)
    lines = (folder / "offline" / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]
    first, last = rows[0], rows[-1]
    # Rows tell the time that they were written at, so from the first to the last lie all steps but the first.
    elapsed = last["time"] - first["time"]
    return {
        "steps": last["step"] - first["step"],
        "images_per_second": (last["images_trained"] - first["images_trained"]) / elapsed,
        "waiting_share": (last["wait_seconds"] - first["wait_seconds"]) / elapsed,
    }


def pool_words(folder: Path, pool: Path, size: int) -> list[str]:
    """What tells a run of the pool that `fill` made."""
    return [
        *("--captions.source", str(folder / "captions.txt"), "--pool.dir", str(pool)),
        *("--generation.size", str(size), "--generation.views", str(VIEWS)),
        *("--pool.images_per_caption", str(IMAGES), "--generator.engine", "fake"),
        *("--stream.bind", f"ipc://{folder}/feed"),
    ]


def _streamrep(*words: str) -> None:
    """Raises UserError where the command fails, having said why."""
    code = subprocess.run([sys.executable, "-m", "launcher", *words], check=False).returncode
    if code:
        raise UserError(
            f"streamrep {words[0]} has failed",
            expected="exit code 0",
            got=f"{code}, its reason above",
            where="streamrep bench decode",
            mend="mend that and start again",
        )


def _sizes(text: str) -> list[int]:
    sizes = sorted({int(part) for part in text.split(",")})
    if TRAINED_SIZE not in sizes:
        raise argparse.ArgumentTypeError(f"{TRAINED_SIZE} has to be among them: it is trained on")
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=int, default=200, help="trained offline")
    add("--sizes", type=_sizes, default=[64, 224, 512], help="of pictures, 64 among them")
    add("--seconds", type=float, default=3.0, help="of decoding, each size")
    add("--out", type=Path, default=RESULT)
    return parser
