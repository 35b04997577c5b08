"""The sockets refuse what they can't do in one line."""

import pytest
import zmq

from protocol.errors import UserError
from protocol.sockets import bind_router, connect_dealer, received


def test_a_port_in_use_is_one_line_that_names_it() -> None:
    """What, expected, got, where, how to mend; nothing is left open."""
    with zmq.Context() as context:
        first = bind_router(context, "tcp://127.0.0.1:*")
        endpoint = first.getsockopt_string(zmq.LAST_ENDPOINT)
        with pytest.raises(UserError, match=r"stream\.bind: cannot listen") as caught:
            bind_router(context, endpoint)
        first.close(linger=0)
    assert endpoint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_malformed_address_is_refused() -> None:
    """An address that is none."""
    with zmq.Context() as context, pytest.raises(UserError, match=r"generator\.connect"):
        connect_dealer(context, "nonsense")


def test_frames_cross_in_both_directions() -> None:
    """A DEALER's message reaches the ROUTER under its identity, and the answer comes back."""
    with zmq.Context() as context:
        router = bind_router(context, "tcp://127.0.0.1:*")
        dealer = connect_dealer(context, router.getsockopt_string(zmq.LAST_ENDPOINT))
        dealer.send(b"up")
        assert router.poll(5000)
        identity, body = router.recv_multipart()
        assert body == b"up"
        router.send_multipart([identity, b"down"])
        assert dealer.poll(5000)
        assert dealer.recv() == b"down"
        with pytest.raises(zmq.ZMQError, match="Host unreachable"):
            router.send_multipart([b"nobody", b"x"])
        dealer.close(linger=0)
        router.close(linger=0)


def test_what_has_come_is_received_in_order_and_no_more_than_asked_for() -> None:
    """The rest stays for the next time; where nothing is left it ends without waiting."""
    with zmq.Context() as context:
        router = bind_router(context, "tcp://127.0.0.1:*")
        dealer = connect_dealer(context, router.getsockopt_string(zmq.LAST_ENDPOINT))
        assert list(received(router, 5)) == []
        for number in range(3):
            dealer.send_multipart([b"%d" % number, b"payload"])
        bodies: list[list[bytes]] = []
        while len(bodies) < 2:
            assert router.poll(5000)
            bodies += [[frame.bytes for frame in frames[1:]] for frames in received(router, 2 - len(bodies))]
        assert bodies == [[b"0", b"payload"], [b"1", b"payload"]]
        assert router.poll(5000)
        [[_, *last]] = received(router, 5)
        assert [frame.bytes for frame in last] == [b"2", b"payload"]
        dealer.close(linger=0)
        router.close(linger=0)
