"""Feed and worker processes over real sockets: nothing lost, nothing doubled, nothing piling up."""

import multiprocessing
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec

from generator_service.config import GeneratorConfig
from generator_service.worker import run_worker
from protocol.generation import GenerationSpec
from trainer.captions import Captions
from trainer.done import DoneIds
from trainer.feed.desk import Desk
from trainer.feed.desk_settings import DeskSettings
from trainer.feed.feed import Feed
from trainer.feed.leases import Leases
from trainer.plan import Plan

PLAN = Plan(Captions([f"caption {i}" for i in range(10)]), 0, GenerationSpec(views=4, size=64))


def _feed(target: int, window: int = 32) -> Feed:
    def make_desk(bound: str) -> Desk:
        settings = DeskSettings(session="s", endpoints=(bound,), content="", lease_seconds=30.0)
        return Desk(PLAN, Leases(DoneIds(), target=target, window=window), settings)

    feed = Feed(make_desk, "tcp://127.0.0.1:*")
    feed.start()
    return feed


def _work(tables: dict[str, Any]) -> None:
    run_worker(msgspec.convert(tables, GeneratorConfig), threading.Event(), say=lambda text: None)


def _worker(feed: Feed, speed: float = 0.0) -> BaseProcess:
    tables = {
        "engine": "fake",
        "connect": feed.endpoint,
        "batch_images": 16,
        "fake_images_per_second": speed,
    }
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(tables,), daemon=True)
    process.start()
    return process


def _drain(feed: Feed, count: int, seconds: float = 60.0) -> list[int]:
    ids: list[int] = []
    deadline = time.monotonic() + seconds
    while len(ids) < count and time.monotonic() < deadline:
        feed.wait(0.2)
        groups = feed.take(8)
        feed.trained([group.group_id for group in groups])
        ids += [group.group_id for group in groups]
    return ids


def test_two_workers_deliver_exactly_the_promised_ids() -> None:
    """Every id up to the target once, and none beyond it, although one worker is killed on the way."""
    feed = _feed(target=400)
    workers = [_worker(feed), _worker(feed, speed=100.0)]
    ids = _drain(feed, 100)
    workers[1].kill()
    ids += _drain(feed, 300)
    assert sorted(ids) == list(range(400))
    time.sleep(0.5)
    assert feed.take(10) == []
    feed.stop("over")
    workers[0].join(10)
    assert workers[0].exitcode == 0


def test_memory_stays_flat_when_the_trainer_is_slower() -> None:
    """With nobody taking groups the window bounds what is drawn; taking slowly, neither process grows."""
    feed = _feed(target=10**6)
    worker = _worker(feed)
    deadline = time.monotonic() + 60
    while feed.status().buffered < 32 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    status = feed.status()
    assert (status.buffered, status.leased, status.wanted) == (32, 0, 0)
    _drain(feed, 500)
    before = _resident_bytes(worker)
    _drain(feed, 1500)
    grown = _resident_bytes(worker) - before
    assert grown < 40 << 20, (
        f"1500 groups are {1500 * 4 * 64 * 64 * 3 >> 20} MiB; the worker grew by {grown >> 20}"
    )
    feed.stop("over")
    worker.join(10)
    assert worker.exitcode == 0


def _resident_bytes(process: BaseProcess) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * 4096
