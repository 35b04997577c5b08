"""When a worker gives up on a trainer that will not have it. Pure; the time in seconds is an argument.

A handshake that names its reason ends the worker at once. One that is only cut off may be a trainer that is
just being started again, or a tunnel with nothing behind it yet: those end it when nothing else has happened
for ten seconds.
"""

from protocol.errors import UserError
from protocol.handshakes import Handshake
from protocol.keys import WorkerKeys

PATIENCE_SECONDS = 10.0
ROW_LENGTH = 5
"""Fewer broken handshakes than this prove nothing."""
ROW_GAP_SECONDS = 5.0
"""A longer pause begins a new row: libzmq tries again ten times a second where a handshake is what fails."""


class Refusals:
    """Follows the handshakes with one rank, whatever socket they are made on."""

    def __init__(self, endpoint: str, keys: WorkerKeys | None) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._named: Handshake | None = None
        self._row = 0
        self._row_began = self._row_ended = 0.0

    def note(self, ending: Handshake, now: float) -> None:
        """A handshake has ended."""
        if ending is Handshake.SUCCEEDED:
            self._row = 0
        elif ending is Handshake.BROKEN:
            if now - self._row_ended > ROW_GAP_SECONDS:
                self._row = 0
            if self._row == 0:
                self._row_began = now
            self._row += 1
            self._row_ended = now
        else:
            self._named = ending

    def error(self, now: float, patience_seconds: float = PATIENCE_SECONDS) -> UserError | None:
        """Why to give up, once there is reason to."""
        if self._named is not None:
            return self._explain(self._named)
        long = self._row >= ROW_LENGTH and self._row_ended - self._row_began >= patience_seconds
        if long and now - self._row_ended <= ROW_GAP_SECONDS:
            return self._explain(Handshake.BROKEN)
        return None

    def _explain(self, ending: Handshake) -> UserError:
        if ending is Handshake.NOT_ADMITTED and self._keys is not None:
            return self._refused(
                expected="a key that the trainer admits",
                got=self._keys.public,
                mend="on the trainer's machine admit it with `streamrep keys admit NAME FILE`",
            )
        if ending is Handshake.KEYLESS and self._keys is not None:
            return self._refused(
                expected="a trainer with keys, since generator.keys is set",
                got="one without",
                mend="set stream.keys at the trainer, or leave generator.keys empty",
            )
        if self._keys is None:
            return self._refused(
                expected="a trainer that asks for no key, since generator.keys is empty",
                got=self._shown(ending),
                mend="give this worker its folder of keys with --generator.keys"
                + self._or_no_trainer(ending),
            )
        return self._refused(
            expected="the trainer whose key is in trainer.public",
            got=self._shown(ending),
            mend="compare trainer.public with the trainer's own, and see that stream.keys is set there"
            + self._or_no_trainer(ending),
        )

    def _shown(self, ending: Handshake) -> str:
        if ending is Handshake.BROKEN:
            return f"{self._row} handshakes cut off"
        return "a trainer with keys" if ending is Handshake.KEYLESS else "another trainer"

    def _or_no_trainer(self, ending: Handshake) -> str:
        told = "; a tunnel or proxy without a trainer behind it looks the same"
        return told if ending is Handshake.BROKEN else ""

    def _refused(self, *, expected: str, got: str, mend: str) -> UserError:
        return UserError("handshake refused", expected=expected, got=got, where=self._endpoint, mend=mend)


def refused_by_word(endpoint: str, reason: str) -> UserError:
    """The trainer's own `reject`, or a welcome that this worker can't follow."""
    return UserError(
        "the trainer refused this worker",
        expected="a worker that fits the run",
        got=reason,
        where=endpoint,
        mend="mend that, or start a worker for the other run",
    )
