"""What a socket's monitor tells of its handshakes, on both sides."""

import socket
import time

import zmq

from protocol.handshakes import Handshake, HandshakeMonitor
from protocol.sockets import bind_router, connect, open_dealer


def _first(monitor: HandshakeMonitor) -> Handshake:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for ending in monitor.read():
            return ending
        time.sleep(0.01)
    raise AssertionError("no handshake has ended")


def test_a_good_handshake_is_told_to_both() -> None:
    """Once a connection; closing leaves nothing that would hold the context."""
    with zmq.Context() as context:
        router = bind_router(context, "tcp://127.0.0.1:*")
        dealer = open_dealer(context)
        monitors = [HandshakeMonitor(router), HandshakeMonitor(dealer)]
        connect(dealer, router.getsockopt_string(zmq.LAST_ENDPOINT))
        assert [_first(monitor) for monitor in monitors] == [Handshake.SUCCEEDED] * 2
        assert [list(monitor.read()) for monitor in monitors] == [[], []]
        for monitor, watched in zip(monitors, (router, dealer), strict=True):
            monitor.close()
            watched.close(linger=0)


def test_a_stranger_that_hangs_up_is_a_broken_handshake() -> None:
    """A port scanner, or a peer that was killed."""
    with zmq.Context() as context:
        router = bind_router(context, "tcp://127.0.0.1:*")
        monitor = HandshakeMonitor(router)
        port = int(router.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        assert _first(monitor) is Handshake.BROKEN
        monitor.close()
        router.close(linger=0)
