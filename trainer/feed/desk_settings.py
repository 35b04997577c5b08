"""What a desk tells workers, and how patient it is with them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DeskSettings:
    """What the desk tells workers and holds them to."""

    session: str
    endpoints: tuple[str, ...]
    content: str
    """The run's content hash; empty until the first worker brings one."""
    follows: bool = False
    """Whether another rank settles the content hash: until it is known every engine waits, so that workers
    with two models can't each become the first of another rank."""
    lease_seconds: float
    exact: bool = False
    """Whether only exact engines of one hash may draw; the hash is then part of the content hash."""
    heartbeat_seconds: float = 1.0
    silence_seconds: float = 5.0
