"""Where a process shows itself: a port of loopback, or HOST:PORT where others are to read it."""

from dataclasses import dataclass

from protocol.errors import UserError

LOOPBACK = "127.0.0.1"
PORT_MAX = 65535


@dataclass(frozen=True)
class Address:
    """A TCP address to listen at; port 0 is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def shifted(self, by: int) -> "Address":
        """The port `by` higher, for the next process of one machine; any free one stays any free one."""
        return Address(self.host, self.port + by if self.port else 0)


def parse_address(text: str, where: str) -> Address:
    """`9464` and `:9464` are loopback, `HOST:9464` that address, `*:9464` every one.

    Raises UserError that names the key `where`.
    """
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    # A second colon is an IPv6 address, which is told from its port by brackets alone.
    if not (port.isascii() and port.isdecimal() and int(port) <= PORT_MAX) or (":" in host and bare == host):
        raise UserError(
            "not an address",
            expected="PORT or HOST:PORT",
            got=text,
            where=where,
            mend="write 9464 for this machine alone, or 0.0.0.0:9464",
        )
    return Address({"": LOOPBACK, "*": "0.0.0.0"}.get(bare, bare), int(port))
