"""Tells people why the trainer stands still."""

from collections.abc import Callable

from trainer.feed.feed import FeedStatus

FIRST_AFTER_SECONDS = 10.0
AGAIN_AFTER_SECONDS = 30.0


class WaitingNotice:
    """Called with the seconds waited for one batch; says after 10 s, then every 30 s, what is missing."""

    def __init__(self, status: Callable[[], FeedStatus], endpoint: str, say: Callable[[str], None]) -> None:
        self._status = status
        self._endpoint = endpoint
        self._say = say
        self._next = FIRST_AFTER_SECONDS

    def __call__(self, waited_seconds: float) -> None:
        if waited_seconds < FIRST_AFTER_SECONDS:
            self._next = FIRST_AFTER_SECONDS
        elif waited_seconds >= self._next:
            self._next = waited_seconds + AGAIN_AFTER_SECONDS
            self._say(
                f"waited {waited_seconds:.0f} s for groups: {why_waiting(self._status(), self._endpoint)}"
            )


def why_waiting(status: FeedStatus, endpoint: str) -> str:
    """Which side is blocked and on what."""
    if not status.workers:
        failed = {reason: n for reason, n in status.refused.items() if reason.startswith("handshake_")}
        told = f" (refused: {failed})" if failed else ""
        return f"no generator is connected to {endpoint}{told}; start one with `streamrep generate`"
    if status.leased:
        return f"{status.workers} generators hold {status.leased} tickets and are drawing"
    if not status.wanted:
        return "the window is full of groups that no batch can take"
    return f"{status.workers} generators are connected and ask for no tickets"
