"""Who may speak to the trainer: libzmq asks here at every handshake, the feed at every message.

A ZAP handler (RFC 27) of our own, polled by the feed's thread. The one of pyzmq copies its keys when it is
told to, so that a deleted file would go on admitting; and it knows nothing of connections already made.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import zmq
from zmq.utils import z85

from protocol.handshakes import Handshake, HandshakeMonitor
from protocol.keys import TrainerKeys
from protocol.sockets import ZAP_DOMAIN
from trainer.feed.allow_list import AllowList

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
REQUESTS_A_TURN = 64


class Gate:
    """One a context, made before its ROUTER is bound. Belongs to the feed's thread once that has started."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", keys: TrainerKeys) -> None:
        """Raises UserError for a file among the admitted that is no key."""
        self._allow_list = AllowList(keys.admitted)
        self._monitor: HandshakeMonitor | None = None
        self.socket = context.socket(zmq.REP)
        """To be polled; `answer` is due when it can be read."""
        self.socket.set(zmq.LINGER, 0)
        self.socket.bind(ZAP_ENDPOINT)

    def watch(self, router: "zmq.Socket[bytes]") -> None:
        """Counts this socket's handshakes from now on."""
        self._monitor = HandshakeMonitor(router)

    def answer(self) -> Counter[str]:
        """Answers every handshake that waits; returns how many have failed since the last call, by reason."""
        self._allow_list.refresh()
        for _ in range(REQUESTS_A_TURN):
            try:
                request = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self.socket.send_multipart(zap_reply(request, self._allow_list.admits))
        endings = self._monitor.read() if self._monitor else ()
        return Counter(ending.value for ending in endings if ending is not Handshake.SUCCEEDED)

    def admits(self, key: str) -> bool:
        """Whether a worker with this key may speak, as of the last `answer`."""
        return self._allow_list.admits(key)

    def close(self) -> None:
        """To be called before the watched socket is closed."""
        if self._monitor is not None:
            self._monitor.close()
        self.socket.close(linger=0)


def zap_reply(request: Sequence[bytes], admits: Callable[[str], bool]) -> list[bytes]:
    """The frames that answer a ZAP request. The user id of who is admitted is the public key, in Z85."""
    version, request_id = (*request[:2], b"", b"")[:2]
    match list(request[2:]):
        case _ if version != ZAP_VERSION:
            status, text, user = b"500", b"another version of ZAP", b""
        case [domain, _address, _identity, b"CURVE", key] if domain == ZAP_DOMAIN and len(key) == 32:
            user = z85.encode(key)
            if admits(user.decode()):
                status, text = b"200", b"OK"
            else:
                status, text, user = b"400", b"not admitted", b""
        case _:
            status, text, user = b"400", b"no CURVE", b""
    return [ZAP_VERSION, request_id, status, text, user, b""]


def key_of(frame: zmq.Frame) -> str:
    """The public key behind a message, in Z85, as the handshake proved it; empty for a peer without one."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
