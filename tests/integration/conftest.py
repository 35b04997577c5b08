"""Runs of the `streamrep` command for more than one file of tests: a small run file, processes that end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest


def free_port() -> int:
    """A port that nobody listens at, with one beside it for the feed of a second rank."""
    while True:
        with socket.socket() as probe, socket.socket() as beside:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            try:
                beside.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class SmallRun:
    """A run of the fake engine and a tiny encoder in a folder of its own."""

    def __init__(self, folder: Path, **values: Any) -> None:
        """`values` override the run file: `train__batch_groups=4`."""
        self.folder = folder / "runs" / "r"
        self.path = folder / "run.toml"
        endpoint = f"tcp://127.0.0.1:{free_port()}"
        tables: dict[str, dict[str, Any]] = {
            "run": {"name": "r", "dir": str(folder / "runs"), "max_steps": 12},
            "generation": {"views": 3, "size": 32},
            "stream": {"bind": endpoint},
            "model": {"head_hidden": 32, "head_out": 16},
            "train": {"batch_groups": 8, "warmup_steps": 2, "log_every": 1, "checkpoint_every": 5},
            "augment": {"crop_size": 32},
            # On a busy machine a trainer may take minutes to import what it needs.
            "generator": {"engine": "fake", "connect": endpoint, "batch_images": 12, "wait_seconds": 600},
        }
        for key, value in values.items():
            section, name = key.split("__")
            tables.setdefault(section, {})[name] = value
        lines = ["eval.sets = []"]
        for section, fields in tables.items():
            lines.append(f"[{section}]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
            if section == "model":
                shape = "embedding_size = 8, hidden_sizes = [8, 16], depths = [1, 1]"
                lines.append(f'encoder = {{ model_type = "resnet", {shape} }}')
        folder.mkdir(exist_ok=True)
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def rows(self) -> list[dict[str, Any]]:
        """All whole rows of metrics.jsonl so far."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text("utf-8").split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def wait_for(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 90.0) -> dict[str, Any]:
        """The first row that holds; an AssertionError with the last ones after so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for row in self.rows():
                if holds(row):
                    return row
            time.sleep(0.1)
        raise AssertionError(f"no such row in {seconds} s; the last are {self.rows()[-3:]}")


Start = Callable[..., "subprocess.Popen[str]"]
StartRanks = Callable[..., "list[subprocess.Popen[str]]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `streamrep WORDS`, with environment variables by name; whatever still runs when the test ends is
    killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "launcher", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)  # a stopped one would be killed only when it goes on
            process.kill()
        process.communicate()


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., SmallRun]:
    """Makes runs; `name` tells those of one test apart."""

    def make(name: str = "only", **values: Any) -> SmallRun:
        return SmallRun(tmp_path / name, **values)

    return make


@pytest.fixture
def start_ranks(start: Start) -> StartRanks:
    """Starts the ranks of a trainer as torchrun would, without its agent; `of_last` are words for the last
    one alone."""

    def begin(
        run: SmallRun, world: int, *words: str, of_last: Sequence[str] = ()
    ) -> "list[subprocess.Popen[str]]":
        place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [
            start("train", str(run.path), *words, *own, RANK=str(rank), LOCAL_RANK=str(rank), **place)
            for rank, own in enumerate([*[()] * (world - 1), of_last])
        ]

    return begin
