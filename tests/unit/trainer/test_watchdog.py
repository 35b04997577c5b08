"""A rank learns that another has died or failed, within a second, whatever it is doing itself."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainer import watchdog
from trainer.errors import StopRequestedError
from trainer.watchdog import Watchdog


class DictStore:
    """What torch's store is to a watchdog, in this process."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def get(self, key: str) -> bytes:
        return self.values[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


class FileStore(DictStore):
    """The same for several processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def set(self, key: str, value: str) -> None:
        aside = self._folder / f".{key}"
        aside.write_text(value)
        aside.rename(self._folder / key)

    def get(self, key: str) -> bytes:
        return (self._folder / key).read_bytes()

    def check(self, keys: list[str]) -> bool:
        return all((self._folder / key).exists() for key in keys)


Ranks = list[Watchdog]
Join = Callable[[int], Ranks]


@pytest.fixture
def ended() -> list[str]:
    """Reasons for which a watchdog would have ended its process."""
    return []


@pytest.fixture
def join(ended: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Join]:
    """Ranks of one run in this process."""
    monkeypatch.setattr(watchdog, "GRACE_SECONDS", 0.5)
    joined: Ranks = []

    def make(world: int) -> Ranks:
        store, stop = DictStore(), threading.Event()
        with ThreadPoolExecutor(world) as pool:
            made = [
                pool.submit(Watchdog, rank, world, store, "127.0.0.1", stop, end=ended.append)
                for rank in range(world)
            ]
            joined.extend(one.result(timeout=20) for one in made)
        return joined

    yield make
    for one in joined:
        one.leave()


@pytest.mark.parametrize("failing", [0, 2])
def test_a_failure_reaches_every_rank_with_its_reason(join: Join, failing: int) -> None:
    """Of the first rank directly, of another through the first; a reason is one line."""
    ranks = join(3)
    ranks[failing].alarm("ValueError: two\nlines")
    for rank, one in enumerate(ranks):
        if rank != failing:
            assert one.lost.wait(5)
            assert one.reason == f"rank {failing} has failed: ValueError: two lines"


def test_a_rank_whose_main_thread_does_not_end_is_ended(join: Join, ended: list[str]) -> None:
    """After the grace; one whose main thread leaves by itself is not."""
    ranks = join(3)
    ranks[1].alarm("out of memory")
    assert ranks[2].lost.wait(5)
    ranks[2].leave()
    deadline = time.monotonic() + 5
    while not ended and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.6)
    assert ended == ["rank 1 has failed: out of memory"]


def test_ranks_may_leave_in_any_order(join: Join, ended: list[str]) -> None:
    """The end of a run is nobody's death."""
    ranks = join(3)
    for one in (ranks[1], ranks[0], ranks[2]):
        one.leave()
        time.sleep(0.2)
    assert not any(one.lost.is_set() for one in ranks)
    assert ended == []


def test_a_killed_process_is_noticed_within_a_second(tmp_path: Path, repository: Path) -> None:
    """By its connection, which the kernel closes: nothing has to be sent for it."""
    code = (
        "import sys, threading, time; from pathlib import Path\n"
        f"sys.path[:0] = [{str(repository)!r}, {str(Path(__file__).parent)!r}]\n"
        "from test_watchdog import FileStore\n"
        "from trainer.watchdog import Watchdog\n"
        f"Watchdog(1, 2, FileStore(Path({str(tmp_path)!r})), '127.0.0.1', threading.Event())\n"
        "time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        first = Watchdog(0, 2, FileStore(tmp_path), "127.0.0.1", threading.Event(), end=lambda reason: None)
        began = time.monotonic()
        other.kill()
        assert first.lost.wait(10)
        assert time.monotonic() - began < 1
        assert first.reason == "rank 1 has died"
        first.leave()
    finally:
        other.kill()
        other.wait()


def test_strangers_are_not_taken_for_ranks() -> None:
    """Who does not know the run's secret, or says that it is a rank of another world, is hung up on."""
    store, stop = DictStore(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(Watchdog, 0, 2, store, "127.0.0.1", stop)
        while not store.check(["watchdog"]):
            time.sleep(0.01)
        nonce, port, _ = store.values["watchdog"].split(" ")
        for line in (b"GET / HTTP/1.1\n", b"x 1\n", f"{nonce} 2\n".encode(), f"{nonce} -1\n".encode()):
            with socket.create_connection(("127.0.0.1", int(port))) as stranger:
                stranger.sendall(line)
                stranger.settimeout(10)
                assert stranger.recv(1) == b""
        second = pool.submit(Watchdog, 1, 2, store, "127.0.0.1", stop)
        for one in (second.result(20), first.result(20)):
            one.leave()


@pytest.mark.parametrize("rank", [0, 1])
def test_who_waits_for_the_others_can_be_stopped(rank: int) -> None:
    """Ctrl-C while a rank is missing."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(StopRequestedError):
        Watchdog(rank, 2, DictStore(), "127.0.0.1", stop)
