"""Addresses to listen at, as a run file writes them."""

import pytest

from monitoring.address import Address, parse_address
from protocol.errors import UserError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", Address("127.0.0.1", 9464)),
        (":9464", Address("127.0.0.1", 9464)),
        ("*:1", Address("0.0.0.0", 1)),
        ("10.0.0.7:9464", Address("10.0.0.7", 9464)),
        ("gpu1:65535", Address("gpu1", 65535)),
        ("[::1]:0", Address("::1", 0)),
    ],
)
def test_a_port_alone_is_loopback(text: str, address: Address) -> None:
    """Everything else names its host."""
    assert parse_address(text, "monitor.bind") == address
    assert parse_address(str(address), "monitor.bind") == address


@pytest.mark.parametrize("text", ["", "here", "here:", "1.2.3.4", "65536", "::1:80", "9464:", "-1", "٣"])
def test_what_is_none_is_refused_in_one_line(text: str) -> None:
    """With the key that holds it."""
    with pytest.raises(UserError, match=r"^monitor\.bind: not an address: expected PORT or HOST:PORT"):
        parse_address(text, "monitor.bind")


def test_ports_of_one_machine_are_counted_up() -> None:
    """But any free port is a free one each time."""
    assert Address("127.0.0.1", 9464).shifted(2) == Address("127.0.0.1", 9466)
    assert Address("127.0.0.1", 0).shifted(2) == Address("127.0.0.1", 0)
