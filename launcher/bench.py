"""`streamrep bench NAME`: runs one of the benchmarks."""

import importlib
import signal
import sys

from launcher.errors import RunFileError
from launcher.interrupts import STOPPED_BY_INTERRUPT

BENCHMARKS = {
    "images": "images/s of every engine over the stock diffusers pipeline, and its share of the roofline",
    "stream": "what the stream costs: images/s at a counting trainer over the engine alone",
    "wire": "groups a second through one endpoint over bare ZeroMQ moving the same frames",
    "crowd": "what 64 workers at one endpoint cost, and whether each has its share",
    "chaos": "what kills, pauses and resumes leave of a run's promise",
    "fuzz": "a live feed under random and mutated messages, beside real workers",
    "retrieval": "a finished run's encoder beside what it has to beat",
    "step": "where the time of a training step goes, and what a batch costs",
    "decode": "whether a trainer waits for the pictures of its pool",
    "modes": "what an encoder learns from a pool, a fresh stream and replay, at equal images trained",
    "ablation": "whether the paper's ablations point the same way on the embedded model",
    "quality": "what steps, guidance, decoder and precision cost in speed, and give in quality",
    "settings": "what a run file's trainer settings learn from real drawings",
    "captions": "ten million captions: indexing, time to the first ticket, memory",
}
"""Name of a module of `benchmarks`, and the question it answers. Each has `main(argv) -> int`."""


def bench(argv: list[str]) -> int:
    """Hands the words after the name to that benchmark; without a name lists them."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: streamrep bench NAME [options]\n")
        print("\n".join(f"  {name:12} {question}" for name, question in BENCHMARKS.items()))
        return 0
    name = argv[0]
    if name not in BENCHMARKS:
        raise RunFileError(
            "unknown benchmark",
            expected="one of " + ", ".join(BENCHMARKS),
            got=name,
            where="streamrep bench",
            mend="choose one of these",
        )
    return _interruptible(name, argv[1:])


def _interruptible(name: str, words: list[str]) -> int:
    """A benchmark looks at no event as runs do: it is left where it stands. What it has measured so far is
    kept by those that say so."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        code: int = importlib.import_module(f"benchmarks.{name}").main(words)
        return code
    except KeyboardInterrupt:
        print("streamrep: interrupted", file=sys.stderr)
        return STOPPED_BY_INTERRUPT
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
