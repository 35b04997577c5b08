"""The two pages over real sockets: codes, bodies, failures, and an end that no client can hold up."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from email.message import Message
from typing import Any

import pytest

from monitoring.address import Address
from monitoring.exposition import Family, gauge
from monitoring.health import Health
from monitoring.server import MonitorServer
from protocol.errors import UserError


class Process:
    """What a server shows; tests change it."""

    health = Health(status="healthy", reason="step 3 of 9 trained", facts={"step": 3})
    fault: Exception | None = None

    def metrics(self) -> list[Family]:
        if self.fault:
            raise self.fault
        return [gauge("streamrep_x", "X.", 1.5)]


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def server(process: Process) -> Iterator[MonitorServer]:
    made = MonitorServer(
        Address("127.0.0.1", 0), process.metrics, lambda: process.health, where="monitor.bind"
    )
    made.start()
    yield made
    made.close()


def ask(server: MonitorServer, path: str, method: str = "GET") -> tuple[int, Message, bytes]:
    """Code, headers and body, also of an error."""
    request = urllib.request.Request(f"http://{server.address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code, error.headers, error.read()


def test_metrics_are_a_page_of_the_text_format(
    server: MonitorServer, parse_exposition: Callable[[str], dict[str, Any]]
) -> None:
    """With the content type that names its version."""
    code, headers, body = ask(server, "/metrics?x=1")
    assert code == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(headers["Content-Length"]) == len(body)
    samples = parse_exposition(body.decode())["streamrep_x"].samples
    assert samples == {("streamrep_x", frozenset()): 1.5}


@pytest.mark.parametrize(("status", "code"), [("healthy", 200), ("stalled", 503), ("failed", 503)])
def test_health_is_a_code_and_its_reason(
    server: MonitorServer, process: Process, status: Any, code: int
) -> None:
    """Both for programs; the reason is for people."""
    process.health = Health(status=status, reason="why\nso", facts={"step": 4, "stall": None})
    got, headers, body = ask(server, "/healthz")
    assert (got, headers["Content-Type"]) == (code, "application/json")
    assert json.loads(body) == {"status": status, "reason": "why\nso", "step": 4, "stall": None}


def test_head_has_no_body_and_other_paths_and_methods_are_refused(server: MonitorServer) -> None:
    """Nothing can be changed over HTTP."""
    code, headers, body = ask(server, "/metrics", "HEAD")
    assert (code, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    assert ask(server, "/")[0] == 404
    assert ask(server, "/metrics/../healthz")[0] == 404
    assert ask(server, "/healthz", "POST")[0] == 501


def test_a_fault_in_a_reading_is_an_answer_and_not_the_end(server: MonitorServer, process: Process) -> None:
    """500 with the error; the next request is answered as before."""
    process.fault = ZeroDivisionError("no steps")
    assert ask(server, "/metrics")[::2] == (500, b"ZeroDivisionError('no steps')\n")
    process.fault = None
    assert ask(server, "/metrics")[0] == 200


def test_a_client_that_says_nothing_holds_up_neither_others_nor_the_end(
    process: Process,
) -> None:
    """Each request has a thread, and none of them is waited for."""
    server = MonitorServer(Address("127.0.0.1", 0), process.metrics, lambda: process.health, where="x")
    server.start()
    with socket.create_connection((server.address.host, server.address.port)) as silent:
        silent.send(b"GET /met")
        assert ask(server, "/metrics")[0] == 200
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 2
    for thread in threading.enumerate():
        if thread.name.startswith("Thread-") and "process_request" in thread.name:
            thread.join(10)  # ends as the client is gone; a later test must not inherit it


def test_a_taken_port_is_told_in_one_line(server: MonitorServer, process: Process) -> None:
    """With the key that holds it, and the port is free again after the end."""
    with pytest.raises(UserError, match=r"^monitor\.bind: cannot listen: .*Address already in use"):
        MonitorServer(server.address, process.metrics, lambda: process.health, where="monitor.bind")
    server.close()
    again = MonitorServer(server.address, process.metrics, lambda: process.health, where="monitor.bind")
    again.close()
