"""How close one endpoint comes to bare ZeroMQ: groups a second of 1.18 MB, ours over theirs, in turns.

    ours:   worker process, an engine that draws nothing ─Group + pixels→ feed of this process, counted, freed
    bare:   a DEALER process ─the same frames, copy=False→ ROUTER process; equal credit
    hashed: bare, with every group hashed on both sides

All end with the pixels in the receiver's memory, which ours keeps when freed (`launcher.freed_memory`), as a
trainer does, and bare does not, being plain. Ours hashes too, which is what a damaged or foreign group is
found by: what it loses against `hashed` is its own. Target 0.80 of bare, median of five, over tcp and over
ipc. With CURVE keys ours alone is encrypted: that figure is reported, and has no target.

Usage: streamrep bench wire [--rounds 5] [--seconds 4] [--groups-per-batch 4]
"""

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zmq

from benchmarks.environment import environment
from generator_service.config import GeneratorConfig
from generator_service.conversation import WorkerFacts
from generator_service.credit import STATIC_BATCHES_HELD
from generator_service.drawing import OnHost
from generator_service.engine import Abandoned
from generator_service.worker import serve
from launcher.key_folder import KeyFolder
from protocol.generation import GenerationSpec
from protocol.keys import read_trainer_keys
from protocol.payload import ImagesNHWC
from protocol.sockets import bind_router, connect_dealer
from protocol.tickets import Ticket
from trainer.captions import load_captions
from trainer.config import CaptionsConfig
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

RESULT = Path("benchmarks/results/wire.json")
TARGETS = {"tcp": 0.80, "ipc": 0.80, "tcp with CURVE": None}
SPEC = GenerationSpec(views=6, size=256)
GROUP_BYTES = SPEC.views * SPEC.size * SPEC.size * 3
HEADER_BYTES = 256
"""About what a group's header takes."""
WARM_UP_SECONDS = 0.5


def main(argv: Sequence[str]) -> int:
    """Measures, prints a table, writes JSON; exit code 1 below the target."""
    parser = argparse.ArgumentParser(
        prog="streamrep bench wire", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, each side, each round")
    parser.add_argument("--groups-per-batch", type=int, default=4, help="groups an engine hands over at once")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(argv)
    transports: dict[str, dict[str, Any]] = {}
    for transport in TARGETS:
        rounds = []
        for number in range(1, options.rounds + 1):
            rates = {
                "bare": bare_rate(transport, options.seconds, options.groups_per_batch),
                "hashed": bare_rate(transport, options.seconds, options.groups_per_batch, hashed=True),
                "ours": our_rate(transport, options.seconds, options.groups_per_batch),
            }
            ratios = {"ratio": rates["ours"] / rates["bare"], "ratio_hashed": rates["ours"] / rates["hashed"]}
            rounds.append(rates | ratios)
            print(
                f"{transport} {number}/{options.rounds}: bare {rates['bare']:.0f}, hashed "
                f"{rates['hashed']:.0f}, ours {rates['ours']:.0f} groups/s, ratio {ratios['ratio']:.3f}",
                flush=True,
            )
        ratio, hashed = (statistics.median(entry[key] for entry in rounds) for key in ratios)
        transports[transport] = {"rounds": rounds, "ratio_median": ratio, "ratio_hashed_median": hashed}
        print(f"{transport}: median {ratio:.3f} of bare, target {TARGETS[transport]}; {hashed:.3f} of hashed")
    result = {
        "question": f"groups of {GROUP_BYTES} bytes a second through one endpoint, over bare ZeroMQ",
        "transports": transports,
        "targets": TARGETS,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    missed = [name for name, target in TARGETS.items() if transports[name]["ratio_median"] < (target or 0)]
    return 1 if missed else 0


@contextmanager
def _endpoint(transport: str) -> Iterator[str]:
    """Something to bind to that nobody else has."""
    if transport.startswith("tcp"):
        yield "tcp://127.0.0.1:*"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"ipc://{folder}/socket"


class StillEngine:
    """Hands over the same pixels again and again: all that is measured is their way."""

    content_hash = engine_hash = "still"
    exact = True
    batch_seconds = 0.0
    summary = "an engine that draws nothing"

    def __init__(self, groups: int) -> None:
        self._groups = [still_group(number) for number in range(groups)]
        self.batch_images = groups * SPEC.views

    def begin(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> OnHost:
        """The drawn ones."""
        return OnHost(self.draw(tickets, abandoned))

    def draw(self, tickets: Sequence[Ticket], abandoned: Abandoned) -> list[ImagesNHWC]:
        """As many as are asked for."""
        return self._groups[: len(tickets)]

    def cuts(self, caption: str) -> bool:
        """Never."""
        return False


def still_group(number: int) -> ImagesNHWC:
    """Random pixels."""
    shape = (SPEC.views, SPEC.size, SPEC.size, 3)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def our_rate(transport: str, seconds: float, groups: int) -> float:
    """Groups a second that a worker process brings to a feed in this process."""
    plan = Plan(load_captions(CaptionsConfig()), 0, SPEC)

    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(session="bench", endpoints=(bound,), content="", lease_seconds=60.0)
        return Desk(plan, Leases(DoneIds(), target=10**9, window=8 * groups), settings)

    with _endpoint(transport) as endpoint, _keys(transport) as (trainer_keys, worker_keys):
        feed = Feed(make_desk, endpoint, read_trainer_keys(trainer_keys))
        feed.start()
        arguments = (feed.endpoint, groups, worker_keys)
        worker = multiprocessing.get_context("spawn").Process(target=_work, args=arguments)
        worker.start()
        try:
            return _count_feed(feed, seconds)
        finally:
            feed.stop("measured")
            worker.join(15)
            worker.kill()
            worker.join()


@contextmanager
def _keys(transport: str) -> Iterator[tuple[str, str]]:
    """Folders of keys for both sides; empty where nothing is encrypted."""
    if not transport.endswith("CURVE"):
        yield "", ""
        return
    with tempfile.TemporaryDirectory() as folder:
        keys = KeyFolder(Path(folder))
        keys.make_trainer()
        yield folder, str(keys.make_worker("bench"))


def _work(endpoint: str, groups: int, keys: str) -> None:
    config = GeneratorConfig(connect=endpoint, engine="fake", batch_images=groups * SPEC.views, keys=keys)
    facts = WorkerFacts(worker=f"bench-{os.getpid()}", device="none", weights="still")
    engine = StillEngine(groups)
    serve(config, facts, lambda spec, abandoned: engine, threading.Event(), lambda text: None)


def _count_feed(feed: Feed, seconds: float) -> float:
    began, counted = 0.0, 0
    while True:
        feed.wait(1.0)
        taken = feed.take(64)
        feed.trained([group.group_id for group in taken])
        now = time.monotonic()
        if not began:
            # Zero until the first group, then a while in which nothing counts.
            began = now + WARM_UP_SECONDS if taken else 0.0
        elif now >= began:
            counted += len(taken)
            if now - began >= seconds:
                return counted / (now - began)


def bare_rate(transport: str, seconds: float, groups: int, *, hashed: bool = False) -> float:
    """Groups a second that a DEALER process brings to a ROUTER process, with nothing else done but their
    hashes on both sides if `hashed`.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    with _endpoint(transport) as endpoint:
        router = spawn.Process(target=_receive_bare, args=(endpoint, seconds, hashed, there))
        router.start()
        there.close()  # so that a router that dies ends the wait for it
        bound = here.recv_bytes().decode()
        sender = spawn.Process(target=_send_bare, args=(bound, groups, hashed))
        sender.start()
        try:
            return float(here.recv_bytes())
        finally:
            for process in (sender, router):
                process.kill()
                process.join()


def _receive_bare(endpoint: str, seconds: float, hashed: bool, parent: Connection) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = bind_router(context, endpoint)
    parent.send_bytes(router.getsockopt_string(zmq.LAST_ENDPOINT).encode())
    parent.send_bytes(repr(_count_router(router, seconds, hashed)).encode())


def _count_router(router: "zmq.Socket[bytes]", seconds: float, hashed: bool) -> float:
    began, counted = 0.0, 0
    while True:
        identity, *frames = router.recv_multipart(copy=False)
        if len(frames) == 1:
            continue  # its hello
        if hashed:
            xxhash.xxh3_64_hexdigest(frames[1].buffer)
        # One more for each that came: the sender's credit stays what it began with.
        router.send_multipart([identity.bytes, b""])
        now = time.monotonic()
        if not began:
            began = now + WARM_UP_SECONDS
        elif now >= began:
            counted += 1
            if now - began >= seconds:
                return counted / (now - began)


def _send_bare(endpoint: str, groups: int, hashed: bool) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = connect_dealer(context, endpoint)
    header, pixels = bytes(HEADER_BYTES), itertools.cycle([still_group(n).data for n in range(groups)])
    dealer.send(b"hello")
    credit = STATIC_BATCHES_HELD * groups
    while True:
        for group in itertools.islice(pixels, credit):
            if hashed:
                xxhash.xxh3_64_hexdigest(group)
            dealer.send_multipart([header, group], copy=False)
        credit = 0
        # Waits for one answer and takes what else is there.
        while not credit or dealer.poll(0):
            dealer.recv()
            credit += 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
