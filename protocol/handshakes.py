"""How the handshakes of a socket end, read from libzmq's monitor. The same for both sides of the wire."""

import struct
from collections.abc import Iterator
from enum import Enum

import zmq

from protocol.sockets import received

READ_AT_ONCE = 1000
"""So that a flood of connections can't keep a loop from its other work."""
_NOT_ADMITTED_STATUS = 400
_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class Handshake(Enum):
    """How one ended. The value of a failure is the label it is counted under."""

    SUCCEEDED = "handshake_succeeded"
    NOT_ADMITTED = "handshake_not_admitted"
    """The worker's key is not on the trainer's list. Both sides learn it."""
    KEYLESS = "handshake_keyless"
    """One side uses keys and the other none. Who hangs up first learns it, the other sees BROKEN."""
    WRONG_KEY = "handshake_wrong_key"
    """The worker trusts another trainer's key. Only the trainer learns it; the worker sees BROKEN."""
    BROKEN = "handshake_broken"
    """Cut off or overdue, without a reason."""


class HandshakeMonitor:
    """Watches one socket from before it binds or connects. Belongs to the thread of that socket."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self._socket = socket
        self._monitor = socket.get_monitor_socket(_EVENTS)

    def read(self) -> Iterator[Handshake]:
        """Every handshake that has ended since the last call."""
        for event, _endpoint in received(self._monitor, READ_AT_ONCE):
            yield _ending(*struct.unpack("=HI", event.buffer))

    def close(self) -> None:
        """To be called before the watched socket is closed; twice does no harm."""
        if not self._monitor.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)


def _ending(event: int, value: int) -> Handshake:
    match event, value:
        case zmq.EVENT_HANDSHAKE_SUCCEEDED, _:
            return Handshake.SUCCEEDED
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH, status if status == _NOT_ADMITTED_STATUS:
            return Handshake.NOT_ADMITTED
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return Handshake.KEYLESS
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
            return Handshake.WRONG_KEY
        case _:
            return Handshake.BROKEN
