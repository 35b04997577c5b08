"""The HTTP server of one process: two pages, made from what two functions tell at that moment.

 GET /metrics ─→ metrics() ─Families→ render        GET /healthz ─→ health() ─Health→ JSON

Requests are answered on threads of their own. What these threads may touch is up to the two functions, which
hand out snapshots. There is no password: on an address beyond loopback everybody who reaches it may read.
"""

import json
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from monitoring.address import Address
from monitoring.exposition import CONTENT_TYPE, Family, render
from monitoring.health import Health
from protocol.errors import UserError

REQUEST_SECONDS = 5.0
"""A client that is slower than this is cut off."""
POLL_SECONDS = 0.1

Metrics = Callable[[], Iterable[Family]]
HealthCheck = Callable[[], Health]


class MonitorServer:
    """Listens from its making, answers from `start` to `close`."""

    def __init__(self, address: Address, metrics: Metrics, health: HealthCheck, *, where: str) -> None:
        """Both functions are called on threads of the server. Raises UserError, naming `where`, for an
        address that is taken or not this machine's."""
        try:
            self._server = _Server(address, metrics, health)
        except OSError as error:
            raise UserError(
                "cannot listen",
                expected="a free address of this machine",
                got=f"{address} ({error.strerror or error})",
                where=where,
                mend="stop the other program, choose another port, or leave it empty",
            ) from error
        # Of a daemon: a client must not keep a process from its end.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="monitor", daemon=True
        )

    @property
    def address(self) -> Address:
        """The one that was really bound."""
        host, port = self._server.server_address[:2]
        return Address(str(host), port)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def close(self) -> None:
        """Ends within a second. Safe before `start`."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: Address, metrics: Metrics, health: HealthCheck) -> None:
        self.metrics, self.health = metrics, health
        if ":" in address.host:
            self.address_family = socket.AF_INET6
        super().__init__((address.host, address.port), _Pages)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for this machine's name and may wait long for it.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is no news
            super().handle_error(request, client_address)


class _Pages(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server_version = "streamrep"
    sys_version = ""

    def do_GET(self) -> None:
        server = cast(_Server, self.server)
        try:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._answer(HTTPStatus.OK, CONTENT_TYPE, render(server.metrics()))
                case "/healthz":
                    health = server.health()
                    self._answer(health.code, "application/json", json.dumps(health.to_json()) + "\n")
                case _:
                    self._answer(HTTPStatus.NOT_FOUND, "text/plain", "/metrics or /healthz\n")
        except OSError:
            raise
        except Exception as error:
            # A fault in a reading must not end a run of days: whoever watches sees the process as down.
            print(f"{self.path}: {error!r}", file=sys.stderr, flush=True)
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error!r}\n")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: a page is asked for every few seconds."""

    def _answer(self, code: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
