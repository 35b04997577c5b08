"""What a peer that sends nonsense costs: a live feed under random and mutated messages, beside real workers.

    paced workers ──groups──────────────→ feed of this process: counted, memory watched
    a fuzzing process ──nonsense, rate-limited──┘  refusals counted by reason

The nonsense: valid messages with bytes flipped, cut or put in; random bytes in random numbers of frames; and
each thing that a feed must refuse by name. Sockets come and go, some say a proper hello first, some take
tickets and never answer.

Usage: streamrep bench fuzz [--messages 1000000] [--rate 4000]
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from benchmarks.nonsense import Nonsense, expected_reasons
from generator_service.config import GeneratorConfig
from generator_service.worker import run_worker
from protocol.generation import GenerationSpec
from trainer.captions import load_captions
from trainer.config import CaptionsConfig
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

RESULT = Path("benchmarks/results/fuzz.json")
TARGET = 0.90
MEMORY_GROWTH_BYTES = 64 << 20
WORKERS = 2
IMAGES_PER_SECOND = 400.0
"""Of each worker: well below what the feed can take, as a real sampler's rate is."""
SPEC = GenerationSpec(views=4, size=64)
SESSION = "fuzzed"
LEASE_SECONDS = 3.0
SETTLING_SHARE = 0.2
"""Of the messages, after which memory is first read: caches and queues are full by then."""


def main(argv: Sequence[str]) -> int:
    """Measures quiet, noise, quiet; exit code 1 if anything crashed, grew, went uncounted or starved."""
    parser = argparse.ArgumentParser(
        prog="streamrep bench fuzz", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=4000.0, help="messages a second, at most")
    parser.add_argument("--quiet-seconds", type=float, default=10.0, help="of measuring before, and after")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(argv)
    with live_feed() as feed:
        drain = Drain(feed)
        drain.until_groups(20)
        before = drain.rate(options.quiet_seconds)
        noisy = drain.rate_while_fuzzed(options)
        after = drain.rate(options.quiet_seconds)
        status = feed.status()
    quiet = (before + after) / 2
    missing = sorted(expected_reasons() - status.refused.keys())
    result: dict[str, Any] = {
        "question": "a live feed under random and mutated messages",
        "messages": options.messages,
        "messages_per_second": options.messages / drain.noise_seconds,
        "groups_per_second": {"before": before, "fuzzed": noisy, "after": after},
        "throughput_ratio": noisy / quiet,
        "target": TARGET,
        "memory_growth_bytes": drain.memory_growth_bytes,
        "refused": dict(sorted(status.refused.items())),
        "dead_letters": status.dead_letters,
        "not_counted": missing,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(
        f"{options.messages} messages at {result['messages_per_second']:.0f}/s: groups/s {before:.1f} before,"
        f" {noisy:.1f} fuzzed, {after:.1f} after (ratio {noisy / quiet:.3f}, target {TARGET}); memory"
        f" {drain.memory_growth_bytes / 1e6:+.1f} MB; not counted: {', '.join(missing) or 'nothing'}"
    )
    print(f"written to {options.out}")
    kept = not missing and drain.memory_growth_bytes < MEMORY_GROWTH_BYTES and noisy >= TARGET * quiet
    return 0 if kept else 1


@contextmanager
def live_feed() -> Iterator[Feed]:
    """A feed in this process with its paced workers, all gone afterwards."""
    plan = Plan(load_captions(CaptionsConfig()), 0, SPEC)

    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(session=SESSION, endpoints=(bound,), content="", lease_seconds=LEASE_SECONDS)
        return Desk(plan, Leases(DoneIds(), target=10**9, window=1024), settings)

    feed = Feed(make_desk, "tcp://127.0.0.1:*")
    feed.start()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(feed.endpoint,), daemon=True) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    try:
        yield feed
    finally:
        feed.stop("measured")
        for worker in workers:
            worker.join(15)
            worker.kill()
            worker.join()


def _work(endpoint: str) -> None:
    config = GeneratorConfig(
        connect=endpoint, engine="fake", batch_images=16, fake_images_per_second=IMAGES_PER_SECOND
    )
    run_worker(config, threading.Event(), say=lambda text: None)


def _fuzz(endpoint: str, run: str, content: str, messages: int, rate: float, seed: int) -> None:
    """Sends so many messages, no faster than `rate` a second."""
    nonsense = Nonsense(endpoint, SPEC, run, SESSION, content, random.Random(seed))
    began = time.monotonic()
    for sent in range(messages):
        nonsense.send()
        ahead = sent / rate - (time.monotonic() - began)
        if ahead > 0.005:
            time.sleep(ahead)
    nonsense.close()


class Drain:
    """Takes what arrives and counts the workers' own groups."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.noise_seconds = 0.0
        self.memory_growth_bytes = 0

    def _take(self) -> int:
        self._feed.wait(0.1)
        taken = self._feed.take(64)
        self._feed.trained([group.group_id for group in taken])
        return sum(not group.worker.startswith("fuzz") for group in taken)

    def until_groups(self, count: int, seconds: float = 120.0) -> None:
        """Raises TimeoutError if the workers don't come."""
        deadline = time.monotonic() + seconds
        while count > 0:
            count -= self._take()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} groups short after {seconds:.0f} s")

    def rate(self, seconds: float) -> float:
        """Groups a second over so many seconds."""
        began, count = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            count += self._take()
        return count / (time.monotonic() - began)

    def rate_while_fuzzed(self, options: argparse.Namespace) -> float:
        """Groups a second while the fuzzer runs. Raises RuntimeError if it fails itself."""
        run, content = plan_digest(), self._feed.content
        args = (self._feed.endpoint, run, content, options.messages, options.rate, options.seed)
        fuzzer = multiprocessing.get_context("spawn").Process(target=_fuzz, args=args, daemon=True)
        fuzzer.start()
        count, memory = 0, 0
        began = shown = time.monotonic()
        while fuzzer.is_alive():
            count += self._take()
            now = time.monotonic()
            if not memory and now - began > SETTLING_SHARE * options.messages / options.rate:
                memory = _resident_bytes()
            if now - shown >= 5:
                shown = now
                refused = sum(self._feed.status().refused.values())
                print(f"{now - began:.0f} s, {count} groups, {refused} refused", flush=True)
        if fuzzer.exitcode != 0:
            raise RuntimeError(f"the fuzzer ended with code {fuzzer.exitcode}")
        self.noise_seconds = time.monotonic() - began
        self.memory_growth_bytes = _resident_bytes() - memory
        return count / self.noise_seconds


def plan_digest() -> str:
    """Digest of the plan that the feed here follows."""
    return Plan(load_captions(CaptionsConfig()), 0, SPEC).digest


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
