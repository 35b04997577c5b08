"""ZeroMQ sockets with every option that matters set on purpose.

What these sockets lose: a DEALER that reconnects keeps unsent messages; a ROUTER drops what it holds for a
peer that has gone. Neither matters here, since a lost ticket's lease expires and a lost group's ticket is
issued again. A send that would block fails with zmq.Again: credit keeps queues far below the marks.
"""

import zmq

from protocol.errors import UserError
from protocol.frames import PAYLOAD_BYTES_MAX

SEND_MARK_MESSAGES = 64
RECEIVE_MARK_MESSAGES = 64
LINGER_MILLISECONDS = 1000


def _set_common(socket: "zmq.Socket[bytes]") -> None:
    socket.set(zmq.LINGER, LINGER_MILLISECONDS)
    socket.set(zmq.SNDHWM, SEND_MARK_MESSAGES)
    socket.set(zmq.RCVHWM, RECEIVE_MARK_MESSAGES)
    # Above the payload cap, so that an oversized payload is received, counted and refused by name; a peer
    # that sends still more is cut off by libzmq.
    socket.set(zmq.MAXMSGSIZE, PAYLOAD_BYTES_MAX + (1 << 20))
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.set(zmq.HEARTBEAT_IVL, 2000)
    socket.set(zmq.HEARTBEAT_TIMEOUT, 10000)
    socket.set(zmq.HANDSHAKE_IVL, 10000)


def bind_router(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    """The trainer's socket. Raises UserError when the endpoint is malformed or taken."""
    socket = context.socket(zmq.ROUTER)
    _set_common(socket)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise UserError(
            "cannot listen",
            expected="a free endpoint such as tcp://127.0.0.1:5755",
            got=f"{endpoint} ({error.strerror})",
            where="stream.bind",
            mend="stop the other program or choose another port with --stream.bind",
        ) from error
    return socket


def connect_dealer(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    """A worker's socket to one rank; libzmq retries the connection until the socket is closed."""
    socket = context.socket(zmq.DEALER)
    _set_common(socket)
    socket.set(zmq.RECONNECT_IVL, 100)
    socket.set(zmq.RECONNECT_IVL_MAX, 2000)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise UserError(
            "cannot connect",
            expected="an endpoint such as tcp://127.0.0.1:5755",
            got=f"{endpoint} ({error.strerror})",
            where="generator.connect",
            mend="give the trainer's address with --generator.connect",
        ) from error
    return socket
