"""ZeroMQ sockets with every option that matters set on purpose.

What these sockets lose: a DEALER that reconnects keeps unsent messages; a ROUTER drops what it holds for a
peer that has gone. Neither matters here, since a lost ticket's lease expires and a lost group's ticket is
issued again. A send that would block fails with zmq.Again: credit keeps queues far below the marks.
"""

from collections.abc import Iterator

import zmq

from protocol.errors import UserError
from protocol.frames import PAYLOAD_BYTES_MAX
from protocol.keys import TrainerKeys, WorkerKeys

SEND_MARK_MESSAGES = 64
RECEIVE_MARK_MESSAGES = 64
LINGER_MILLISECONDS = 1000
ZAP_DOMAIN = b"streamrep"


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


def received(socket: "zmq.Socket[bytes]", at_most: int) -> Iterator[list[zmq.Frame]]:
    """The messages that have come, in frames of libzmq's own memory.

    Asks before it receives: an exception for "nothing more" costs several times as much.
    """
    for _ in range(at_most):
        if not socket.poll(0):
            return
        yield socket.recv_multipart(zmq.NOBLOCK, copy=False)


def bind_router(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: TrainerKeys | None = None
) -> "zmq.Socket[bytes]":
    """The trainer's socket. With keys it speaks CURVE only, to whom the context's ZAP handler lets in.

    Raises UserError when the endpoint is malformed or taken.
    """
    socket = context.socket(zmq.ROUTER)
    _set_common(socket)
    socket.set(zmq.ROUTER_MANDATORY, 1)
    if keys is not None:
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        # Without this libzmq lets every key in when no handler is there to ask.
        socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
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


def open_dealer(
    context: "zmq.Context[zmq.Socket[bytes]]", keys: WorkerKeys | None = None
) -> "zmq.Socket[bytes]":
    """A worker's socket, not yet connected, so that it can be watched from its first handshake on."""
    socket = context.socket(zmq.DEALER)
    _set_common(socket)
    socket.set(zmq.RECONNECT_IVL, 100)
    socket.set(zmq.RECONNECT_IVL_MAX, 2000)
    if keys is not None:
        socket.set(zmq.CURVE_SERVERKEY, keys.trainer.encode())
        socket.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
        socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
    return socket


def connect(socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """To one rank; libzmq retries the connection until the socket is closed. Raises UserError."""
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise UserError(
            "cannot connect",
            expected="an endpoint such as tcp://127.0.0.1:5755",
            got=f"{endpoint} ({error.strerror})",
            where="generator.connect",
            mend="give the trainer's address with --generator.connect",
        ) from error


def connect_dealer(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: WorkerKeys | None = None
) -> "zmq.Socket[bytes]":
    """`open_dealer`, connected. Raises UserError."""
    socket = open_dealer(context, keys)
    try:
        connect(socket, endpoint)
    except UserError:
        socket.close(linger=0)
        raise
    return socket
