"""Notices that another rank has died, and ends this one, whatever it is waiting for.

    rank 1 ─TCP─→ ┐
    rank 2 ─TCP─→ rank 0      EOF without `bye`: the peer is dead      `lost REASON`: so says who knows

A connection ends with its process, by whatever signal, and the kernel finds out about a machine that is gone:
no thread has to beat, so a rank that is busy for minutes is not taken for dead. The first rank passes on
what it learns. Ranks trust the network between them, as torch.distributed does.
"""

import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from protocol.errors import UserError
from trainer.errors import StopRequestedError

JOIN_SECONDS = 300.0
GRACE_SECONDS = 3.0
"""In which the main thread may end by itself once a peer is lost."""
LINE_BYTES_MAX = 4096
_POLL_SECONDS = 0.2
_KEY = "watchdog"


class Store(Protocol):
    """What this needs of torch's key-value store."""

    def set(self, key: str, value: str) -> None:
        """Writes."""

    def get(self, key: str) -> bytes:
        """Reads; blocks until it is there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""


class Watchdog:
    """Connected to its peers from the start on; `leave` or `alarm` ends it."""

    def __init__(
        self,
        rank: int,
        world: int,
        store: Store,
        address: str,
        stop: threading.Event,
        *,
        end: Callable[[str], None] | None = None,
    ) -> None:
        """Waits for all ranks. `address`: where the first rank listens for the others. `end` takes the reason
        when the main thread does not end in time. Raises UserError, StopRequestedError."""
        self._rank = rank
        self._end = end or _end_process
        self._patience = _Patience(stop)
        self.lost = threading.Event()
        """Set when a peer has died or failed; `reason` says which and how."""
        self.reason = ""
        self._peers: dict[int, socket.socket] = {}
        self._wake, self._woken = socket.socketpair()
        try:
            if rank == 0:
                self._gather(world, store, address)
            else:
                self._peers[0] = self._reach(store)
        except BaseException:
            self._close()
            raise
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """From now on this rank may end, and the others may end as they like."""
        self._finish(b"bye\n")

    def alarm(self, reason: str) -> None:
        """This rank ends by an error; the others are told why and end as well."""
        self._finish(_lost_line(f"rank {self._rank} has failed: {reason}"))

    def _finish(self, line: bytes) -> None:
        if self._over.is_set():
            return
        self._over.set()
        self._wake.send(b"x")
        self._thread.join(GRACE_SECONDS)
        for peer in self._peers.values():
            _send(peer, line)
        self._close()

    def _close(self) -> None:
        for sock in (*self._peers.values(), self._wake, self._woken):
            sock.close()

    # joining

    def _gather(self, world: int, store: Store, address: str) -> None:
        nonce = secrets.token_hex(16)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.create_server((address, 0), family=family, backlog=world) as server:
            server.settimeout(_POLL_SECONDS)
            store.set(_KEY, f"{nonce} {server.getsockname()[1]} {address}")
            while len(self._peers) < world - 1:
                self._patience.spend(f"{world} ranks", f"{len(self._peers) + 1}")
                try:
                    peer, _ = server.accept()
                except TimeoutError:
                    continue
                rank = _rank_of(peer, nonce)
                if rank is None or not 0 < rank < world or rank in self._peers:
                    peer.close()
                    continue
                self._peers[rank] = _kept_alive(peer)

    def _reach(self, store: Store) -> socket.socket:
        while not store.check([_KEY]):
            self._patience.spend("the first rank", "none")
            time.sleep(_POLL_SECONDS)
        nonce, port, address = store.get(_KEY).decode().split(" ")
        try:
            peer = socket.create_connection((address, int(port)), timeout=JOIN_SECONDS)
        except OSError as error:
            raise _unjoined(f"the first rank at {address}", error.strerror or str(error)) from error
        peer.sendall(f"{nonce} {self._rank}\n".encode())
        return _kept_alive(peer)

    # the watchdog's own thread

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for rank, peer in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, rank)
            while not self._over.is_set():
                for key, _ in selector.select():
                    if key.data is None:
                        continue
                    line = _read(key.fileobj)  # type: ignore[arg-type]  # only sockets were registered
                    selector.unregister(key.fileobj)
                    if line != b"bye":
                        self._note(key.data, line)
                        return

    def _note(self, rank: int, line: bytes) -> None:
        told = line.removeprefix(b"lost ").decode("utf-8", "replace")
        self.reason = told if line.startswith(b"lost ") else f"rank {rank} has died"
        for peer in self._peers.values():
            _send(peer, _lost_line(self.reason))
        self.lost.set()
        if not self._over.wait(GRACE_SECONDS):
            self._end(self.reason)


class _Patience:
    """Until all ranks have joined."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._until = time.monotonic() + JOIN_SECONDS

    def spend(self, expected: str, got: str) -> None:
        if self._stop.is_set():
            raise StopRequestedError("asked to stop while ranks were joining")
        if time.monotonic() > self._until:
            raise _unjoined(expected, f"{got} within {JOIN_SECONDS:g} s")


def _unjoined(expected: str, got: str) -> UserError:
    return UserError(
        "ranks did not come together",
        expected=expected,
        got=got,
        where="MASTER_ADDR",
        mend="start every rank of the run, with one MASTER_ADDR that all of them reach",
    )


def _rank_of(peer: socket.socket, nonce: str) -> int | None:
    """What a new connection says; None for a stranger."""
    peer.settimeout(5.0)
    said = _read(peer).decode("ascii", "replace").split(" ")
    return int(said[1]) if len(said) == 2 and said[0] == nonce and said[1].isdigit() else None


def _kept_alive(peer: socket.socket) -> socket.socket:
    """A machine that is gone is noticed after about 6 s, although neither side says anything."""
    peer.settimeout(1.0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # not everywhere; then the system's own intervals hold
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return peer


def _read(peer: socket.socket) -> bytes:
    """One line without its end; what had come of it where the peer is gone."""
    line = b""
    try:
        while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX:
            byte = peer.recv(1)
            if not byte:
                break
            line += byte
    except OSError:
        pass  # gone as well, only less politely
    return line.rstrip(b"\n")


def _send(peer: socket.socket, line: bytes) -> None:
    try:
        peer.sendall(line)
    except OSError:
        return  # it is gone, and needs to be told no more


def _lost_line(reason: str) -> bytes:
    text = " ".join(reason.split()).encode()[: LINE_BYTES_MAX - 16]
    return b"lost " + text + b"\n"


def _end_process(reason: str) -> None:
    """From within: a thread that waits for the lost rank can't be ended otherwise."""
    print(f"streamrep: PeerFailed: {reason}", file=sys.stderr, flush=True)
    os._exit(1)
