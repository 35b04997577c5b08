"""Do 64 workers at one endpoint cost more than one, and does each of them get its share?

    a process with N sockets, each a worker of the wire protocol ─groups of 1.18 MB→ feed of this process

Each worker sends the same pixels for every ticket it gets. All N together hold as many tickets as the one
does alone, so that only their number differs. Measured are this process's CPU seconds a group, which is the
feed and a consumer that counts, and how many groups each worker brought. Targets: at most 1.5 times the CPU
seconds of one worker, and no worker below half of the mean.

Usage: streamrep bench crowd [--workers 64] [--rounds 3] [--seconds 5]
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from benchmarks.environment import environment
from benchmarks.wire import SPEC, WARM_UP_SECONDS, still_group
from protocol import PROTOCOL_VERSION
from protocol.frames import decode_from_trainer, encode
from protocol.messages import Equipped, Group, Hello, Ready, Tickets, Welcome, WorkerHeartbeat
from protocol.payload import describe_images
from protocol.sockets import connect_dealer
from trainer.captions import load_captions
from trainer.config import CaptionsConfig
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

RESULT = Path("benchmarks/results/crowd.json")
CPU_TARGET, SHARE_TARGET = 1.5, 0.5
TICKETS = 128
"""Held by all workers together."""
BEAT_MILLISECONDS = 1000


def main(argv: Sequence[str]) -> int:
    """Measures in turns, prints, writes JSON; exit code 1 where a target is missed."""
    options = _parser().parse_args(argv)
    rounds = []
    for number in range(1, options.rounds + 1):
        one, many = measure(1, options.seconds), measure(options.workers, options.seconds)
        ratio = many["cpu_seconds_a_group"] / one["cpu_seconds_a_group"]
        rounds.append({"one": one, "many": many, "cpu_ratio": ratio})
        print(
            f"round {number}/{options.rounds}: one worker {one['groups_per_second']:.0f} groups/s,"
            f" {options.workers} workers {many['groups_per_second']:.0f}; CPU a group {ratio:.2f} times;"
            f" least share {many['least_share']:.2f} of the mean",
            flush=True,
        )
    ratio = statistics.median(entry["cpu_ratio"] for entry in rounds)
    share = min(entry["many"]["least_share"] for entry in rounds)
    print(f"median CPU ratio {ratio:.2f} (at most {CPU_TARGET}), least share {share:.2f} ({SHARE_TARGET})")
    result = {
        "question": f"what {options.workers} workers at one endpoint cost, and whether each has its share",
        "workers": options.workers,
        "rounds": rounds,
        "cpu_ratio_median": ratio,
        "least_share": share,
        "targets": {"cpu_ratio": CPU_TARGET, "least_share": SHARE_TARGET},
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    return 0 if ratio <= CPU_TARGET and share >= SHARE_TARGET else 1


def measure(workers: int, seconds: float) -> dict[str, Any]:
    """Groups a second of that many workers, CPU seconds a group of this process, shares of the workers."""
    plan = Plan(load_captions(CaptionsConfig()), 0, SPEC)

    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(session="bench", endpoints=(bound,), content="", lease_seconds=60.0)
        return Desk(plan, Leases(DoneIds(), target=10**9, window=2 * TICKETS), settings)

    feed = Feed(make_desk, "tcp://127.0.0.1:*")
    feed.start()
    sender = multiprocessing.get_context("spawn").Process(target=_emulate, args=(feed.endpoint, workers))
    sender.start()
    try:
        while feed.status().workers < workers:
            _drain(feed)
        until = time.monotonic() + WARM_UP_SECONDS
        while time.monotonic() < until:
            _drain(feed)
        began, cpu, counts = time.monotonic(), time.process_time(), Counter[str]()
        while time.monotonic() - began < seconds:
            counts.update(_drain(feed))
        elapsed, cpu = time.monotonic() - began, time.process_time() - cpu
    finally:
        sender.kill()
        sender.join()
        feed.stop("measured")
    total = counts.total()
    least = min((counts[f"emulated-{number}"] for number in range(workers)), default=0)
    return {
        "groups_per_second": total / elapsed,
        "cpu_seconds_a_group": cpu / total,
        "least_share": least * workers / total,
    }


def _drain(feed: Feed) -> list[str]:
    """Takes and frees what has come; tells whose it was."""
    feed.wait(0.1)
    taken = feed.take(64)
    feed.trained([group.group_id for group in taken])
    return [group.worker for group in taken]


class Emulated:
    """One worker that draws in no time."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, number: int, credit: int
    ) -> None:
        self.socket = connect_dealer(context, endpoint)
        self._credit = credit
        self._images = still_group(0)
        self._header: Group | None = None
        self._stamp = {"run": "", "session": ""}
        name = f"emulated-{number}"
        hello = Hello(**self._stamp, protocol=PROTOCOL_VERSION, worker=name, device="none", weights="still")
        self.socket.send(encode(hello))

    def hear(self) -> None:
        """Answers one message."""
        match decode_from_trainer(self.socket.recv_multipart(copy=False)):
            case Welcome() as welcome:
                self._stamp = {"run": welcome.run, "session": welcome.session}
                self._header = describe_images(
                    self._images, run=welcome.run, session=welcome.session, group_id=0, draw_seconds=0.0
                )
                equipped = Equipped(
                    run=welcome.run,
                    session=welcome.session,
                    content="still",
                    engine="still",
                    batch_images=SPEC.views * self._credit,
                )
                self.socket.send(encode(equipped))
                self.socket.send(encode(Ready(**self._stamp, credit=self._credit)))
            case Tickets() as tickets:
                for ticket in tickets.tickets:
                    assert self._header is not None, "tickets follow a welcome"
                    header = msgspec.structs.replace(self._header, group_id=ticket.group_id)
                    self.socket.send_multipart([encode(header), self._images.data], copy=False)

    def beat(self) -> None:
        """Shows that it lives."""
        if self._header is not None:
            self.socket.send(encode(WorkerHeartbeat(**self._stamp, idle_seconds=0.0, batch_seconds=0.1)))


def _emulate(endpoint: str, workers: int) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    crowd = [Emulated(context, endpoint, number, max(1, TICKETS // workers)) for number in range(workers)]
    by_socket = {worker.socket: worker for worker in crowd}
    poller = zmq.Poller()
    for worker in crowd:
        poller.register(worker.socket, zmq.POLLIN)
    beat_at = 0.0
    while True:
        for socket, _ in poller.poll(BEAT_MILLISECONDS):
            by_socket[socket].hear()
        if time.monotonic() >= beat_at:
            beat_at = time.monotonic() + BEAT_MILLISECONDS / 1000
            for worker in crowd:
                worker.beat()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamrep bench crowd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--workers", type=int, default=64)
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=5.0, help="of measuring, each side, each round")
    add("--out", type=Path, default=RESULT)
    return parser
