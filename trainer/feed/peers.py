"""Who is connected: what each worker said of itself and when it was last heard."""

from collections.abc import Iterator
from dataclasses import dataclass

from protocol.messages import Equipped, Hello


@dataclass(slots=True)
class Peer:
    """One worker's socket. A worker that opens a new socket is a new peer."""

    identity: bytes
    name: str
    device: str
    last_heard: float
    last_progress: float
    key: str = ""
    """Its public key in Z85; empty where no keys are used."""
    batch_seconds: float = 0.0
    """p95 of its recent static batches."""
    credit: int = 0
    engine: str = ""
    content: str = ""
    batch_images: int = 0
    claims: Equipped | None = None
    """What it said of an engine that is neither accepted nor refused yet."""

    @property
    def equipped(self) -> bool:
        """Whether its engine is built and its content hash was accepted."""
        return bool(self.engine)


class Peers:
    """The connected workers by socket identity."""

    def __init__(self) -> None:
        self._by_identity: dict[bytes, Peer] = {}
        self.joined = 0
        """Hellos that were welcomed."""
        self.left_silently = False
        """Whether the last one to go had stopped beating, rather than said so or been sent away."""
        self._leavers_heard: float | None = None

    def greet(self, identity: bytes, hello: Hello, now: float, key: str = "") -> Peer:
        """Adds a worker, or starts it anew where the identity was known."""
        peer = Peer(identity, hello.worker, hello.device, last_heard=now, last_progress=now, key=key)
        self._by_identity[identity] = peer
        self.joined += 1
        return peer

    def equip(self, peer: Peer, equipped: Equipped) -> None:
        """Notes what the worker built."""
        peer.engine = equipped.engine
        peer.content = equipped.content
        peer.batch_images = equipped.batch_images
        peer.claims = None

    def get(self, identity: bytes) -> Peer | None:
        """The worker behind a socket, if it has said hello."""
        return self._by_identity.get(identity)

    def drop(self, identity: bytes, *, silent: bool = False) -> None:
        """Forgets a worker."""
        peer = self._by_identity.pop(identity, None)
        if peer is not None:
            self.left_silently = silent
            self._leavers_heard = max(peer.last_heard, self._leavers_heard or peer.last_heard)

    @property
    def last_heard(self) -> float | None:
        """When any worker, gone or not, was last heard; None before the first."""
        times = [peer.last_heard for peer in self._by_identity.values()]
        times += [] if self._leavers_heard is None else [self._leavers_heard]
        return max(times, default=None)

    def __len__(self) -> int:
        return len(self._by_identity)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._by_identity.values()))

    @property
    def equipped(self) -> list[bytes]:
        """Identities that tickets may go to."""
        return [peer.identity for peer in self._by_identity.values() if peer.equipped]

    @property
    def names(self) -> dict[bytes, str]:
        """What each worker that may get tickets is known by across its sockets: its key, or else its name."""
        return {peer.identity: peer.key or peer.name for peer in self if peer.equipped}

    def silent(self, now: float, silence_seconds: float) -> list[Peer]:
        """Those unheard for too long."""
        return [peer for peer in self if now - peer.last_heard > silence_seconds]
