"""What a worker says to a rank, and when it gives the rank up."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator_service.conversation import (
    GREETING_SECONDS,
    RETRY_SECONDS,
    Conversation,
    Equipment,
    Vitals,
    WorkerFacts,
)
from protocol.errors import MalformedMessageError
from protocol.generation import GenerationSpec
from protocol.messages import (
    Cancel,
    Equipped,
    Hello,
    Ready,
    Reject,
    Tickets,
    TrainerHeartbeat,
    Welcome,
    WorkerHeartbeat,
    WorkerMessage,
)

FACTS = WorkerFacts(worker="w", device="d", weights="f" * 32)
EQUIPMENT = Equipment(content="c", engine="e", batch_images=6, exact=True)
VITALS = Vitals(idle_seconds=0.5, batch_seconds=2.0)
WELCOME = Welcome(
    run="r",
    session="s",
    protocol=1,
    endpoints=("tcp://127.0.0.1:1",),
    generation=GenerationSpec(),
    heartbeat_seconds=1.0,
    silence_seconds=3.0,
)


def _say(
    talk: Conversation, now: float, equipment: Equipment | None = EQUIPMENT, credit: int = 2
) -> list[WorkerMessage]:
    return talk.outgoing(now, equipment=equipment, credit=credit, vitals=VITALS)


def _active(now: float = 0.0) -> Conversation:
    talk = Conversation(FACTS, now)
    _say(talk, now)
    talk.receive(WELCOME, now)
    _say(talk, now)
    return talk


def test_from_hello_to_ready() -> None:
    """Hello alone first; heartbeats from the welcome on, while the engine is built; then equipped, ready."""
    talk = Conversation(FACTS, 0.0)
    (hello,) = _say(talk, 0.0, None)
    assert hello == Hello(run="", session="", protocol=1, worker="w", device="d", weights="f" * 32)
    assert _say(talk, 1.0, None) == []
    talk.receive(WELCOME, 1.0)
    beat = WorkerHeartbeat(run="r", session="s", idle_seconds=0.5, batch_seconds=2.0)
    assert _say(talk, 1.0, None) == [beat]
    assert _say(talk, 1.9, None) == []
    assert _say(talk, 2.0, None) == [beat]
    assert not talk.active
    said = _say(talk, 2.5)
    assert said == [
        Equipped(run="r", session="s", content="c", engine="e", batch_images=6, exact=True),
        Ready(run="r", session="s", credit=2),
    ]
    assert talk.active


def test_credit_is_said_when_it_changes() -> None:
    """And once more whenever that is asked for."""
    talk = _active()
    assert _say(talk, 0.1) == []
    assert _say(talk, 0.2, credit=5) == [Ready(run="r", session="s", credit=5)]
    assert _say(talk, 0.3, credit=5) == []
    talk.say_ready_again()
    assert _say(talk, 0.4, credit=5) == [Ready(run="r", session="s", credit=5)]


def test_silence_ends_the_socket_and_keeps_run_and_session() -> None:
    """Before a welcome after the greeting time, later after the trainer's own; the next hello names both."""
    talk = Conversation(FACTS, 0.0)
    assert not talk.must_reopen(GREETING_SECONDS - 0.1)
    assert talk.must_reopen(GREETING_SECONDS)
    assert talk.lost_at == 0.0
    talk = _active(10.0)
    assert talk.lost_at is None
    talk.receive(TrainerHeartbeat(run="r", session="s", wanted=1, buffered=0), 12.0)
    assert not talk.must_reopen(14.9)
    assert talk.must_reopen(15.0)
    assert talk.lost_at == 15.0
    talk.reopen(15.0)
    assert not talk.active
    (hello,) = _say(talk, 15.0)
    assert isinstance(hello, Hello)
    assert (hello.run, hello.session) == ("r", "s")
    assert talk.must_reopen(15.0 + GREETING_SECONDS)
    assert talk.lost_at == 15.0


def test_a_new_session_is_told_everything_again() -> None:
    """A welcome in place of the old one, even on the same socket."""
    talk = _active()
    talk.receive(msgspec.structs.replace(WELCOME, session="t"), 5.0)
    said = _say(talk, 5.0)
    assert [type(message) for message in said] == [Equipped, Ready, WorkerHeartbeat]
    assert {message.session for message in said} == {"t"}


def test_reject_with_retry_leads_to_a_new_socket_after_a_pause() -> None:
    """Nothing more is said on the old one, and repeated rejects do not push the time away."""
    talk = _active()
    talk.receive(Reject(run="r", session="s", reason="who are you", retry=True), 1.0)
    assert _say(talk, 2.0) == []
    talk.receive(Reject(run="r", session="s", reason="who are you", retry=True), 1.0 + RETRY_SECONDS / 2)
    assert not talk.must_reopen(1.0 + RETRY_SECONDS / 2)
    assert talk.must_reopen(1.0 + RETRY_SECONDS)
    assert talk.lost_at is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Cancel(run="r", session="old", group_ids=(1,)), "session"),
        (Tickets(run="other", session="s", tickets=()), "session"),
    ],
)
def test_messages_of_another_session_are_dropped(message: Cancel | Tickets, reason: str) -> None:
    """They are malformed, by a reason that is counted."""
    talk = _active()
    with pytest.raises(MalformedMessageError) as dropped:
        talk.receive(message, 1.0)
    assert dropped.value.reason == reason


def test_tickets_before_equipped_are_dropped() -> None:
    """No engine could draw them."""
    talk = Conversation(FACTS, 0.0)
    talk.receive(WELCOME, 0.0)
    with pytest.raises(MalformedMessageError) as dropped:
        talk.receive(Tickets(run="r", session="s", tickets=()), 0.0)
    assert dropped.value.reason == "order"


incoming = st.sampled_from(
    [
        None,
        WELCOME,
        msgspec.structs.replace(WELCOME, session="t"),
        Reject(run="", session="", reason="again", retry=True),
        TrainerHeartbeat(run="r", session="s", wanted=0, buffered=0),
        TrainerHeartbeat(run="r", session="t", wanted=0, buffered=0),
        Tickets(run="r", session="s", tickets=()),
    ]
)


@settings(deadline=None)
@given(st.lists(st.tuples(incoming, st.floats(0.0, 4.0), st.integers(0, 3)), max_size=60))
def test_the_order_of_messages_never_breaks(script: list[tuple[object, float, int]]) -> None:
    """On every socket: hello first and once; equipped before ready; nothing of a session before its welcome;
    heartbeats no oftener than asked for."""
    talk, now = Conversation(FACTS, 0.0), 0.0
    said: list[WorkerMessage] = []
    welcomed: set[str] = set()
    beat_at = None
    for message, seconds, credit in script:
        now += seconds
        if message is not None:
            with contextlib.suppress(MalformedMessageError):
                talk.receive(message, now)
            if isinstance(message, Welcome):
                welcomed.add(message.session)
                said, beat_at = [one for one in said if isinstance(one, Hello)], None
        if talk.must_reopen(now):
            talk.reopen(now)
            said, welcomed, beat_at = [], set(), None
        for one in _say(talk, now, credit=credit):
            if isinstance(one, Hello):
                assert said == []
            else:
                assert one.session in welcomed
            if isinstance(one, Ready):
                assert any(isinstance(before, Equipped) for before in said)
            if isinstance(one, WorkerHeartbeat):
                assert beat_at is None or now - beat_at >= WELCOME.heartbeat_seconds
                beat_at = now
            said.append(one)
        assert any(isinstance(one, Hello) for one in said) or welcomed
        assert talk.active == any(isinstance(one, Equipped) for one in said)
