"""Where the ranks of a trainer are, as its `welcome` tells it."""

from urllib.parse import urlsplit

ANY = ("0.0.0.0", "::")


def reachable(endpoint: str, connect: str) -> str:
    """An endpoint bound to every address of its machine, read as the machine where `connect` found the first
    rank; any other as it is."""
    told, found = urlsplit(endpoint), urlsplit(connect)
    if told.scheme != "tcp" or told.hostname not in ANY or found.scheme != "tcp":
        return endpoint
    return f"tcp://{found.netloc.rpartition(':')[0]}:{told.port}"
