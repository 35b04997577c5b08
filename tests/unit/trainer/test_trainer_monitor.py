"""What /metrics and /healthz say of a trainer, from readings made by hand and from a folder on disk."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitoring.exposition import render
from protocol.errors import UserError
from trainer.checkpoint import Checkpoints, TrainedState
from trainer.config import TrainerConfig
from trainer.feed.feed import FeedStatus
from trainer.monitor.board import Board
from trainer.monitor.families import PEER_REASONS, families
from trainer.monitor.health import health
from trainer.monitor.pages import show
from trainer.monitor.reading import Observer, Reading
from trainer.stall import Stall, Want
from trainer.stall_watch import Standstill

STATUS = FeedStatus(
    workers=2,
    groups_received=40,
    buffered=5,
    leased=6,
    wanted=7,
    dead_letters=1,
    refused={"duplicate": 3, "handshake_keyless": 2},
    connected=3,
)
ROW = {
    "step": 12,
    "time": 1e9,
    "loss": 2.5,
    "lr": 1e-3,
    "images_trained": 900,
    "images_per_second": 33.0,
    "fresh_fraction": 0.25,
    "mean_uses": 4.0,
    "ring_groups": 64,
    "reuse": 1.5,
}
MOVING = Standstill(want=Want(step=13, needed=8, fresh=0), seconds={"drawing": 4.0, "checkpoint": 1.5})
READING = Reading(
    run="r",
    endpoint="tcp://x",
    views=3,
    max_steps=100,
    first_step=10,
    first_uses=280,
    row=ROW,
    status=STATUS,
    standstill=MOVING,
    checkpoint_at=2e9,
    disk_free_bytes=10**12,
    disk_size_bytes=2 * 10**12,
)


def _blocked(seconds: float) -> Standstill:
    return Standstill(
        want=Want(step=13, needed=8, fresh=2),
        reason=Stall.DRAWING,
        lasted=seconds,
        seconds={"drawing": 4.0 + seconds},
    )


def _values(reading: Reading, parse: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Numbers by name, and by label value where there is a label."""
    values: dict[str, Any] = {}
    for name, family in parse(render(families(reading))).items():
        assert family.help
        assert family.typed
        for (_, labels), value in family.samples.items():
            if labels:
                [(_, key)] = labels
                values.setdefault(name.removeprefix("streamrep_trainer_"), {})[key] = value
            else:
                values[name.removeprefix("streamrep_trainer_")] = value
    return values


def test_every_number_of_a_resumed_run(parse_exposition: Callable[[str], dict[str, Any]]) -> None:
    """Counters are this process's own: 2 of the 12 steps, and (300 - 280) uses of 3 views."""
    values = _values(READING, parse_exposition)
    stalled, refused = values.pop("stalled"), values.pop("refused_total")
    seconds = values.pop("stall_seconds_total")
    assert values == {
        "info": {"r": 1},
        "steps_total": 2,
        "step": 12,
        "max_steps": 100,
        "images_trained_total": 60,
        "images_per_second": 33.0,
        "fresh_ratio": 0.25,
        "mean_uses": 4.0,
        "reuse": 1.5,
        "uses": 0,
        "age_seconds": 0,
        "loss": 2.5,
        "learning_rate": 1e-3,
        "last_step_timestamp_seconds": 1e9,
        "last_checkpoint_timestamp_seconds": 2e9,
        "waiting_seconds_total": 4.0,
        "images_received_total": 120,
        "buffered_groups": 5,
        "leased_groups": 6,
        "wanted_groups": 7,
        "ring_groups": 64,
        "workers": 2,
        "connected_workers": 3,
        "dead_letters_total": 1,
        "disk_free_bytes": 10**12,
        "disk_size_bytes": 2 * 10**12,
    }
    assert set(stalled) == set(seconds) == {stall.value for stall in Stall}
    assert (sum(stalled.values()), seconds["drawing"], seconds["checkpoint"]) == (0, 4.0, 1.5)
    assert refused == dict.fromkeys(PEER_REASONS, 0) | {"handshake_keyless": 2, "duplicate": 3}


def test_before_the_first_step_only_what_is_known_is_told(
    parse_exposition: Callable[[str], dict[str, Any]],
) -> None:
    """No loss of 0, no rate of 0, no checkpoint of 1970."""
    values = _values(replace(READING, row=None, checkpoint_at=None), parse_exposition)
    assert (values["steps_total"], values["step"], values["images_trained_total"]) == (0, 10, 0)
    missing = {"loss", "images_per_second", "fresh_ratio", "last_checkpoint_timestamp_seconds"}
    assert not missing & set(values)


def test_a_standstill_is_counted_while_it_lasts(parse_exposition: Callable[[str], dict[str, Any]]) -> None:
    """Its cause is 1, its seconds grow, and the old rate is not shown on."""
    values = _values(replace(READING, standstill=_blocked(6.0)), parse_exposition)
    assert {cause for cause, value in values["stalled"].items() if value} == {"drawing"}
    assert values["stall_seconds_total"]["drawing"] == values["waiting_seconds_total"] == 10.0
    assert values["images_per_second"] == 0
    short = _values(replace(READING, standstill=_blocked(1.0)), parse_exposition)
    assert short["images_per_second"] == 33.0


def test_health_knows_short_waits_from_stalls() -> None:
    """503 from the given second on, with the cause and what helps."""
    assert health(READING, 60.0).code == 200
    assert health(replace(READING, standstill=_blocked(59.9)), 60.0).code == 200
    stalled = health(replace(READING, standstill=_blocked(60.0)), 60.0)
    assert (stalled.code, stalled.status) == (503, "stalled")
    assert stalled.to_json()["stall"] == "drawing"
    assert stalled.to_json()["stall_seconds"] == 60.0
    assert "the generators are the bottleneck: 2 of 8 groups came" in stalled.reason


def test_a_pause_is_no_alarm(parse_exposition: Callable[[str], dict[str, Any]]) -> None:
    """However long: healthy, named, and no time waited for groups."""
    still = replace(_blocked(9999.0), reason=Stall.PAUSED, seconds={"drawing": 4.0, "paused": 9999.0})
    paused = replace(READING, standstill=still)
    assert (health(paused, 60.0).code, health(paused, 60.0).to_json()["stall"]) == (200, "paused")
    values = _values(paused, parse_exposition)
    assert values["waiting_seconds_total"] == 4.0
    assert values["stall_seconds_total"]["paused"] == 9999.0


def test_a_dead_feed_is_a_failure_whatever_else_holds() -> None:
    """With its own reason."""
    failed = health(replace(READING, status=replace(STATUS, failure="20 of 90 tickets can't be drawn")), 60.0)
    assert (failed.code, failed.status) == (503, "failed")
    assert failed.reason.endswith("20 of 90 tickets can't be drawn")


class Stream:
    endpoint = "tcp://x"

    def status(self) -> FeedStatus:
        return STATUS


class Stalls:
    standstill = MOVING


def _observer(tmp_path: Path, **monitor: Any) -> Observer:
    config = msgspec.convert({"run": {"name": "r"}, "monitor": monitor}, TrainerConfig)
    state = TrainedState(
        step=5,
        plan="p",
        content="",
        done_low=0,
        done_above=(),
        dead_letters={},
        ring=(),
        groups_trained=1,
        uses=2,
        images_received=3,
        wait_seconds=0.0,
        train_seconds=0.0,
    )
    (tmp_path / "checkpoints").mkdir()
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    return Observer(config, state, Board(), Stream(), Stalls(), checkpoints, tmp_path)


def test_a_reading_is_of_the_folder_and_the_newest_row(tmp_path: Path) -> None:
    """Checkpoint time from the newest whole one, disk from the system, row from the board."""
    observer = _observer(tmp_path)
    assert observer.read().checkpoint_at is None
    assert observer.read().row is None
    for name, written in (("step-000000005", 5e8), ("step-000000009", 9e8), (".writing-000000010", 1e9)):
        (tmp_path / "checkpoints" / name).mkdir()
        os.utime(tmp_path / "checkpoints" / name, (written, written))
    observer.board.put(ROW)
    reading = observer.read()
    assert (reading.checkpoint_at, reading.row, reading.first_step) == (9e8, ROW, 5)
    disk = os.statvfs(tmp_path)
    assert reading.disk_size_bytes == disk.f_frsize * disk.f_blocks
    assert 0 < reading.disk_free_bytes < reading.disk_size_bytes


def test_pages_are_shown_where_the_run_file_says(
    tmp_path: Path, parse_exposition: Callable[[str], dict[str, Any]]
) -> None:
    """And nowhere without an address; afterwards the port is closed."""
    with show(_observer(tmp_path, bind="0", stalled_seconds=1.0)) as server:
        assert server is not None
        with urllib.request.urlopen(f"http://{server.address}/healthz", timeout=10) as answer:
            assert json.loads(answer.read())["reason"].startswith("no step yet")
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as answer:
            assert "streamrep_trainer_workers" in parse_exposition(answer.read().decode())
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{server.address}/healthz", timeout=10)


def test_nothing_listens_by_default(tmp_path: Path) -> None:
    """Monitoring is asked for."""
    with show(_observer(tmp_path)) as server:
        assert server is None


def test_a_taken_port_names_the_key(tmp_path: Path) -> None:
    """One line, before anything is trained."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        show(_observer(tmp_path / "a", bind="0")) as server,
        closing(server),
        pytest.raises(UserError, match=r"^monitor\.bind: cannot listen"),
        show(_observer(tmp_path / "b", bind=str(server.address))),
    ):
        time.sleep(0)
