"""What the stream costs: images/s arriving at a trainer that only counts, over images/s of the same engine
called in a bare loop, measured in turns within one run.

    bare loop:   engine.draw, again and again                              (its own process)
    stream:      generator process ─ZeroMQ→ feed of this process, which counts and frees at once

Target 0.97 or more. Usage: streamrep bench stream [--engine eager] [--rounds 3] [--seconds 20]
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.environment import environment
from generator_service.config import GeneratorConfig
from generator_service.worker import run_worker
from protocol.generation import GenerationSpec
from trainer.captions import load_captions
from trainer.config import CaptionsConfig
from trainer.done import DoneIds
from trainer.feed.desk import Desk, DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

RESULT = Path("benchmarks/results/stream.json")
TARGET = 0.97


def main(argv: Sequence[str]) -> int:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(prog="streamrep bench stream", description=__doc__.split("\n\n")[0])
    parser.add_argument("--engine", default="eager", choices=["eager", "fake"])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--batch-images", type=int, default=GeneratorConfig().batch_images)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, each side, each round")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(argv)
    config = GeneratorConfig(engine=options.engine, model=options.model, batch_images=options.batch_images)
    rounds = []
    for number in range(1, options.rounds + 1):
        print(f"round {number} of {options.rounds}: bare loop", file=sys.stderr)
        bare = bare_rate(config, options.seconds)
        print(f"round {number} of {options.rounds}: stream", file=sys.stderr)
        stream = stream_rate(config, options.seconds)
        rounds.append({"bare": bare, "stream": stream, "ratio": stream / bare})
        print(f"  bare {bare:.2f} images/s, stream {stream:.2f} images/s, ratio {stream / bare:.3f}")
    ratio = statistics.median(entry["ratio"] for entry in rounds)
    result = {
        "question": "images/s of the stream over images/s of the engine alone",
        "generator": msgspec.to_builtins(config),
        "rounds": rounds,
        "ratio_median": ratio,
        "target": TARGET,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"median ratio {ratio:.3f}, target {TARGET}; written to {options.out}")
    return 0 if ratio >= TARGET else 1


def _plan() -> Plan:
    return Plan(load_captions(CaptionsConfig()), 0, GenerationSpec())


def _batch_groups(config: GeneratorConfig) -> int:
    return config.batch_images // GenerationSpec().views


def bare_rate(config: GeneratorConfig, seconds: float) -> float:
    """Images a second of the engine in a process of its own, after its warm-up."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_draw_alone, args=(config, seconds, theirs))
    process.start()
    theirs.close()
    rate: float = ours.recv()
    process.join()
    return rate


def _draw_alone(config: GeneratorConfig, seconds: float, answer: Connection) -> None:
    from generator_service.worker import prepare

    plan, groups = _plan(), _batch_groups(config)
    _, build = prepare(config)
    engine = build(plan.spec, lambda: False)
    began, drawn = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        engine.draw([plan.ticket(drawn + i) for i in range(groups)], lambda: False)
        drawn += groups
    answer.send(drawn * plan.spec.views / (time.monotonic() - began))


def stream_rate(config: GeneratorConfig, seconds: float) -> float:
    """Images a second that reach a counting trainer, from the end of the second static batch on."""
    plan, groups = _plan(), _batch_groups(config)

    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(session="bench", endpoints=(bound,), content="", lease_seconds=60.0)
        return Desk(plan, Leases(DoneIds(), target=10**9, window=8 * groups), settings)

    feed = Feed(make_desk, "tcp://127.0.0.1:*")
    feed.start()
    context = multiprocessing.get_context("spawn")
    tables = msgspec.to_builtins(config) | {"connect": feed.endpoint}
    worker = context.Process(target=_work, args=(tables,))
    worker.start()
    try:
        return _count(feed, groups, seconds) * plan.spec.views
    finally:
        feed.stop("benchmark over")
        worker.join(15)
        worker.kill()
        worker.join()


def _work(tables: dict[str, Any]) -> None:
    run_worker(msgspec.convert(tables, GeneratorConfig), threading.Event(), say=lambda text: None)


def _count(feed: Feed, batch_groups: int, seconds: float) -> float:
    """Groups a second between the ends of two static batches at least `seconds` apart."""
    counted, began, first = 0, 0.0, 0
    while True:
        feed.wait(1.0)
        groups = feed.take(batch_groups)
        feed.trained([group.group_id for group in groups])
        before, counted = counted // batch_groups, counted + len(groups)
        if counted // batch_groups == before:
            continue
        now = time.monotonic()
        if not began and counted >= 2 * batch_groups:
            began, first = now, counted
        elif began and now - began >= seconds:
            return (counted - first) / (now - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
