"""Ten million captions: how long they take to index, how soon after a start the first ticket is there, and
how much memory the captions take.

    this process: captions.tsv (URL and caption, one in twenty a duplicate) in a temporary folder
        ├→ fresh process: index, first ticket                    seconds of indexing, peak memory
        └→ fresh processes, one after another: first ticket,     seconds from their start, peak memory
           then tickets of captions all over the file            tickets a second

A process here is Python with the trainer's captions and plan, without torch and without images. The index
has just been written, so it lies in the system's file cache. Targets: 5 s to the first ticket once indexed,
500 MB of memory at any time.

Usage: streamrep bench captions [--count 10000000] [--starts 5] [--tickets 100000] [--folder DIR]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xxhash

from benchmarks.environment import environment
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from trainer.caption_sources.index import IndexedCaptions
from trainer.captions import load_captions
from trainer.config import CaptionsConfig
from trainer.plan import Plan

RESULT = Path("benchmarks/results/captions.json")
TARGET_SECONDS = 5.0
TARGET_BYTES = 500_000_000
COUNT_MIN = 100_000
"""Fewer captions may be too few for an index."""
DUPLICATES_EVERY = 20
CHUNK = 100_000
_SYLLABLES = ("ba", "do", "fi", "gu", "ka", "lo", "mi", "nu", "pa", "ro", "si", "tu", "va", "wo", "xi", "zu")
WORDS = tuple(first + second for first in _SYLLABLES for second in _SYLLABLES)


def main(argv: Sequence[str]) -> int:
    """Makes the captions, measures, prints, writes JSON; exit code 1 where a target is missed."""
    options = _parser().parse_args(argv)
    if options.count < COUNT_MIN:
        raise UserError(
            "too few captions for an index",
            expected=f"at least {COUNT_MIN}",
            got=str(options.count),
            where="--count",
            mend="raise it",
        )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, index = Path(folder) / "captions.tsv", Path(folder) / "index"
        write_captions(source, options.count)
        built = start(source, index, tickets=1)
        print(
            f"indexed {built['captions']:,} captions ({source.stat().st_size / 1e6:.0f} MB) in"
            f" {built['load_seconds']:.1f} s, peak memory {built['peak_bytes'] / 1e6:.0f} MB",
            flush=True,
        )
        starts = []
        for number in range(1, options.starts + 1):
            starts.append(start(source, index, tickets=options.tickets))
            print(f"start {number} of {options.starts}: {_text(starts[-1])}", flush=True)
        sizes = {"source_bytes": source.stat().st_size, "index_bytes": _bytes_of(index)}
    result = {
        "question": "seconds to the first ticket of many captions once indexed, and peak memory",
        "lines": options.count,
        **sizes,
        "index": built,
        "starts": starts,
        "first_ticket_seconds_median": statistics.median(one["first_ticket_seconds"] for one in starts),
        "first_ticket_seconds_worst": max(one["first_ticket_seconds"] for one in starts),
        "peak_bytes_worst": max(one["peak_bytes"] for one in [built, *starts]),
        "targets": {"first_ticket_seconds": TARGET_SECONDS, "peak_bytes": TARGET_BYTES},
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    in_time = result["first_ticket_seconds_worst"] <= TARGET_SECONDS
    return 0 if in_time and result["peak_bytes_worst"] <= TARGET_BYTES else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench captions", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--count", type=int, default=10_000_000, help="lines of the caption file")
    parser.add_argument("--starts", type=int, default=5, help="fresh processes after the one that indexes")
    parser.add_argument("--tickets", type=int, default=100_000, help="drawn up by each of them")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser


def write_captions(path: Path, count: int) -> None:
    """URL and caption without a header, as CC12M is; every 20th line repeats the caption ten lines above."""
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, CHUNK):
            lines = []
            for number in range(start, min(start + CHUNK, count)):
                repeats = number % DUPLICATES_EVERY == DUPLICATES_EVERY - 1
                text = caption_of(number - 10 if repeats else number)
                lines.append(f"https://example.org/{number}.jpg\t{text}\n")
            file.writelines(lines)


def caption_of(number: int) -> str:
    """Twelve words, and never the same for two numbers below 2^64: eight of them are the number's digits."""
    chance = xxhash.xxh3_64_intdigest(number.to_bytes(8, "little")).to_bytes(8, "little")[:4]
    return " ".join(WORDS[byte] for byte in chance + number.to_bytes(8, "little"))


def start(source: Path, index: Path, *, tickets: int) -> dict[str, Any]:
    """What a fresh process tells of itself, and how long after its start its first ticket was there."""
    began = time.monotonic()
    words = [sys.executable, "-m", "benchmarks.captions", str(source), str(index), str(tickets)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.monotonic() - began
        rest = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"the measured process ended with code {process.returncode}")
    told: dict[str, Any] = json.loads(rest)
    return {"first_ticket_seconds": seconds, **told}


def _be_measured(source: str, index: str, tickets: int) -> None:
    began = time.monotonic()
    captions = load_captions(CaptionsConfig(source=source, index=index))
    loaded = time.monotonic()
    assert isinstance(captions, IndexedCaptions), f"{source} is too small for an index"
    plan = Plan(captions, 0, GenerationSpec())
    print(plan.ticket(0).group_id, flush=True)
    began_tickets = time.monotonic()
    for group_id in range(tickets):
        plan.ticket(group_id)
    told = {
        "captions": len(captions),
        "duplicates": captions.counts.duplicates,
        "load_seconds": loaded - began,
        "tickets_per_second": tickets / (time.monotonic() - began_tickets),
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(told))


def peak_bytes() -> int:
    """The most memory that this process has had, mapped files included."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not the system's maxrss: that of a child begins with what its parent had when it forked.
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _text(one: dict[str, Any]) -> str:
    return (
        f"first ticket after {one['first_ticket_seconds']:.2f} s, {one['tickets_per_second']:.0f} tickets/s,"
        f" peak memory {one['peak_bytes'] / 1e6:.0f} MB"
    )


if __name__ == "__main__":
    _be_measured(sys.argv[1], sys.argv[2], int(sys.argv[3]))
