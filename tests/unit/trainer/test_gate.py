"""The answers to ZAP requests, and the key behind a message."""

import pytest
import zmq
from zmq.utils import z85

from trainer.feed.gate import key_of, zap_reply

KEY = bytes(range(32))
NAME = z85.encode(KEY).decode()
REQUEST = [b"1.0", b"77", b"streamrep", b"10.0.0.1", b"", b"CURVE", KEY]


def test_an_admitted_key_becomes_the_user_id() -> None:
    """Of every message that comes over that connection."""
    assert zap_reply(REQUEST, {NAME}.__contains__) == [b"1.0", b"77", b"200", b"OK", NAME.encode(), b""]


@pytest.mark.parametrize(
    ("request_frames", "status"),
    [
        ([*REQUEST[:6], bytes(32)], b"400"),
        (REQUEST[:6], b"400"),
        ([*REQUEST, b"more"], b"400"),
        ([*REQUEST[:6], KEY[:31]], b"400"),
        ([*REQUEST[:5], b"NULL"], b"400"),
        ([*REQUEST[:5], b"PLAIN", b"user", b"word"], b"400"),
        ([*REQUEST[:2], b"global", *REQUEST[3:]], b"400"),
        ([b"2.0", *REQUEST[1:]], b"500"),
        ([b"1.0"], b"400"),
        ([], b"500"),
    ],
)
def test_everything_else_is_refused(request_frames: list[bytes], status: bytes) -> None:
    """Another key, mechanism, domain, version or shape; a refusal carries no user id."""
    reply = zap_reply(request_frames, {NAME}.__contains__)
    assert len(reply) == 6
    assert (reply[0], reply[2], reply[4]) == (b"1.0", status, b"")


def test_a_message_without_a_handshake_has_no_key() -> None:
    """So that no list admits it."""
    with zmq.Context() as context:
        one, two = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        one.bind("inproc://x")
        two.connect("inproc://x")
        two.send(b"hello")
        assert key_of(one.recv(copy=False)) == ""
        one.close()
        two.close()
