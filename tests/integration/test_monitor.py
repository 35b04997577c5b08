"""A real run's two pages on both sides: what they count is what the run folder says, and stalls are seen."""

import json
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, page: str) -> tuple[int, str]:
    """Code and body; (0, "") while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def ask_until(port: int, page: str, holds: Callable[[int, str], bool]) -> str:
    """The first body that holds, within 90 s."""
    deadline = time.monotonic() + 90
    while not holds(*(answer := ask(port, page))):
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    return answer[1]


@pytest.mark.timeout(300)
def test_both_sides_show_what_they_do(
    small_run: Callable[..., Any],
    start: Callable[..., Any],
    parse_exposition: Callable[[str], dict[str, Any]],
) -> None:
    """Numbers that agree with metrics.jsonl; 503 with the cause while nothing comes; 200 when it goes on."""
    trainer_port, generator_port = free_port(), free_port()
    run = small_run(
        run__max_steps=5000,
        generator__fake_images_per_second=120.0,
        monitor__bind=str(trainer_port),
        monitor__stalled_seconds=3.0,
        generator__monitor_bind=str(generator_port),
    )
    trainer, generator = start("train", str(run.path)), start("generate", str(run.path))
    run.wait_for(lambda row: row["step"] >= 6)

    page = parse_exposition(ask(trainer_port, "metrics")[1])
    drawn = parse_exposition(ask(generator_port, "metrics")[1])
    row = run.rows()[-1]

    def value(families: dict[str, Any], name: str) -> float:
        return families[name].samples[name, frozenset()]

    assert 6 <= value(page, "streamrep_trainer_steps_total") <= row["step"]
    assert value(page, "streamrep_trainer_images_trained_total") == 24 * value(
        page, "streamrep_trainer_steps_total"
    )
    assert value(page, "streamrep_trainer_images_received_total") >= value(
        page, "streamrep_trainer_images_trained_total"
    )
    assert value(page, "streamrep_trainer_workers") == 1
    assert value(drawn, "streamrep_generator_connected") == 1
    assert value(drawn, "streamrep_generator_images_drawn_total") >= value(
        page, "streamrep_trainer_images_received_total"
    )
    assert json.loads(ask(generator_port, "healthz")[1])["status"] == "healthy"

    generator.send_signal(signal.SIGSTOP)
    stalled = json.loads(ask_until(trainer_port, "healthz", lambda code, _: code == 503))
    assert (stalled["status"], stalled["run"]) == ("stalled", "r")
    assert stalled["stall_seconds"] >= 3
    before = parse_exposition(ask(trainer_port, "metrics")[1])
    time.sleep(1.5)
    after = parse_exposition(ask(trainer_port, "metrics")[1])
    waited = "streamrep_trainer_waiting_seconds_total"
    assert value(after, waited) - value(before, waited) > 1
    generator.send_signal(signal.SIGCONT)
    ask_until(trainer_port, "healthz", lambda code, _: code == 200)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(20) == 0
    assert ask(trainer_port, "healthz") == (0, "")
