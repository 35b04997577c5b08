"""What the stream costs: images/s arriving at a trainer that only counts, over images/s of the same engine
called in a bare loop, measured in turns within one run.

    generator process, one engine:   bare loop, stream, bare loop, stream, ...
                                        │         │ ZeroMQ
    this process:              images/s ◁         └→ feed, which counts and frees at once

A machine whose speed wavers hides a few percent, so the share of time in which the engine stood still in the
stream, from the end of one draw to the beginning of the next, is measured beside the ratio.

Target 0.97 or more. Usage: streamrep bench stream [--engine eager] [--rounds 9] [--seconds 8]
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
from generator_service.conversation import WorkerFacts
from generator_service.drawing import OnHost
from generator_service.engine import Abandoned, Engine
from generator_service.worker import prepare, serve
from launcher.run_file import load
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket
from trainer.captions import load_captions
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
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
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring, each side, each round")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(argv)
    config = GeneratorConfig(engine=options.engine, model=options.model, batch_images=options.batch_images)
    rounds = []
    with _Generator(config) as generator:
        for number in range(1, options.rounds + 1):
            bare = generator.bare_rate(options.seconds)
            stream, idle = generator.stream_rate(options.seconds)
            rounds.append({"bare": bare, "stream": stream, "ratio": stream / bare, "idle_share": idle})
            print(
                f"round {number} of {options.rounds}: bare {bare:.2f}, stream {stream:.2f} images/s, "
                f"ratio {stream / bare:.3f}, engine idle {idle:.2%}",
                flush=True,
            )
    ratio = statistics.median(entry["ratio"] for entry in rounds)
    idle = statistics.median(entry["idle_share"] for entry in rounds)
    result = {
        "question": "images/s of the stream over images/s of the engine alone",
        "generator": msgspec.to_builtins(config),
        "rounds": rounds,
        "ratio_median": ratio,
        "idle_share_median": idle,
        "target": TARGET,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"median ratio {ratio:.3f}, target {TARGET}; engine idle {idle:.2%}; written to {options.out}")
    return 0 if ratio >= TARGET else 1


def _plan() -> Plan:
    """The default run's."""
    config = load(None, [])
    return Plan(load_captions(config.captions), 0, config.generation)


class _Generator:
    """A generator process whose one engine draws alone or for a trainer, as told.

    One engine for both: two processes differ by more than the stream costs, from where their memory lies.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        self._groups = config.batch_images // _plan().spec.views
        context = multiprocessing.get_context("spawn")
        self._orders, theirs = context.Pipe()
        self._process = context.Process(target=_host, args=(msgspec.to_builtins(config), theirs))
        self._process.start()
        theirs.close()

    def __enter__(self) -> "_Generator":
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        self._process.join(15)
        self._process.kill()
        self._process.join()

    def bare_rate(self, seconds: float) -> float:
        """Images a second of the engine alone, over whole static batches."""
        self._orders.send(("bare", seconds))
        rate: float = self._orders.recv()
        return rate

    def stream_rate(self, seconds: float) -> tuple[float, float]:
        """Images a second that reach a counting trainer, from the end of the second static batch on, and the
        share of time from the first draw to the last in which the engine did not draw.
        """
        plan = _plan()

        def make_desk(bound: str) -> Desk:
            settings = DeskSettings(session="bench", endpoints=(bound,), content="", lease_seconds=60.0)
            return Desk(plan, Leases(DoneIds(), target=10**9, window=8 * self._groups), settings)

        feed = Feed(make_desk, "tcp://127.0.0.1:*")
        feed.start()
        self._orders.send(("stream", feed.endpoint))
        try:
            rate = _count(feed, self._groups, seconds) * plan.spec.views
        finally:
            feed.stop("measured")
            idle: float = self._orders.recv()
        return rate, idle


def _host(tables: dict[str, Any], orders: Connection) -> None:
    """The generator process: obeys until the other end is closed."""
    config = msgspec.convert(tables, GeneratorConfig)
    facts, build = prepare(config)
    engine = build(_plan().spec, lambda: False)
    while True:
        try:
            order, value = orders.recv()
        except EOFError:
            return
        if order == "bare":
            orders.send(_draw_alone(engine, value))
        else:
            orders.send(_draw_for(value, config, facts, engine))


def _draw_for(endpoint: str, config: GeneratorConfig, facts: WorkerFacts, engine: Engine) -> float:
    """Serves the trainer at that address to its end; returns the share of time the engine stood still."""
    watched = _Watched(engine)
    config = msgspec.structs.replace(config, connect=endpoint)
    serve(config, facts, lambda spec, abandoned: watched, threading.Event(), lambda text: None)
    return watched.idle_share


class _Watched:
    """An engine whose draws are timed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._draws: list[tuple[float, float]] = []
        self.content_hash, self.engine_hash = engine.content_hash, engine.engine_hash
        self.batch_images, self.exact = engine.batch_images, engine.exact
        self.batch_seconds, self.summary = engine.batch_seconds, engine.summary

    def begin(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> OnHost:
        return OnHost(self.draw(tickets, abandoned))

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        began = time.monotonic()
        groups = self._engine.draw(tickets, abandoned)
        self._draws.append((began, time.monotonic()))
        return groups

    def cuts(self, caption: str) -> bool:
        return self._engine.cuts(caption)

    @property
    def idle_share(self) -> float:
        """Of the time from the beginning of the first draw to the end of the last."""
        busy = sum(end - began for began, end in self._draws)
        return 1 - busy / (self._draws[-1][1] - self._draws[0][0])


def _draw_alone(engine: Engine, seconds: float) -> float:
    plan, began, drawn = _plan(), time.monotonic(), 0
    groups = engine.batch_images // plan.spec.views
    while time.monotonic() - began < seconds:
        engine.draw([plan.ticket(drawn + i) for i in range(groups)], lambda: False)
        drawn += groups
    return drawn * plan.spec.views / (time.monotonic() - began)


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
