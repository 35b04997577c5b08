"""A worker gives up at once where a handshake says why, and after ten seconds where it does not."""

import pytest

from generator_service.refusals import Refusals
from protocol.handshakes import Handshake
from protocol.keys import WorkerKeys

KEYS = WorkerKeys(secret="s" * 40, public="p" * 40, trainer="t" * 40)


def _break(refusals: Refusals, start: float, seconds: float) -> float:
    """Broken handshakes, ten a second as libzmq tries again; returns the time of the last."""
    now = start
    for i in range(round(10 * seconds) + 1):
        now = start + i / 10
        refusals.note(Handshake.BROKEN, now)
    return now


@pytest.mark.parametrize(
    ("ending", "keys", "words"),
    [
        (Handshake.NOT_ADMITTED, KEYS, "p" * 40 + "; on the trainer's machine admit it"),
        (Handshake.KEYLESS, KEYS, "set stream.keys at the trainer"),
        (Handshake.WRONG_KEY, KEYS, "compare trainer.public"),
        (Handshake.KEYLESS, None, "with --generator.keys"),
    ],
)
def test_a_named_reason_ends_it_at_once(ending: Handshake, keys: WorkerKeys | None, words: str) -> None:
    """In one line that says how to mend it."""
    refusals = Refusals("tcp://x", keys)
    assert refusals.error(0.0) is None
    refusals.note(ending, 1.0)
    error = refusals.error(1.0)
    assert error is not None
    assert words in str(error)
    assert str(error).startswith("tcp://x: handshake refused: ")
    assert "s" * 40 not in str(error)


@pytest.mark.parametrize(("keys", "words"), [(KEYS, "trainer.public"), (None, "--generator.keys")])
def test_ten_seconds_of_broken_handshakes_end_it(keys: WorkerKeys | None, words: str) -> None:
    """With the likely causes, a tunnel among them."""
    refusals = Refusals("tcp://x", keys)
    now = _break(refusals, 5.0, 9.9)
    assert refusals.error(now) is None
    now = _break(refusals, now, 0.2)
    error = refusals.error(now)
    assert error is not None
    assert words in str(error)
    assert "tunnel" in str(error)


def test_a_handshake_that_succeeds_forgives_those_before() -> None:
    """A trainer that was starting."""
    refusals = Refusals("tcp://x", KEYS)
    now = _break(refusals, 0.0, 9.5)
    refusals.note(Handshake.SUCCEEDED, now)
    assert refusals.error(_break(refusals, now, 2.0)) is None


def test_a_trainer_that_dies_now_and_then_is_waited_for() -> None:
    """One broken handshake each, far apart; or many, and then nobody there at all."""
    refusals = Refusals("tcp://x", KEYS)
    for i in range(20):
        refusals.note(Handshake.BROKEN, 6.0 * i)
        assert refusals.error(6.0 * i) is None
    now = _break(refusals, 1000.0, 3.0)
    assert refusals.error(now + 1, 2.0) is not None
    assert refusals.error(now + 6, 2.0) is None
