"""The line that a generator tells people every 30 seconds, and the rate that is read back from it."""

import re
from collections.abc import Mapping

_RATE = re.compile(r"^([\d.]+) images/s, \d+ groups sent")


def status_line(images_per_second: float, groups: int, dropped: Mapping[str, int]) -> str:
    """`dropped`: messages of the trainer that made no sense, by reason."""
    line = f"{images_per_second:.1f} images/s, {groups} groups sent"
    return f"{line}, dropped {dict(dropped)}" if dropped else line


def rate_of(line: str) -> float | None:
    """Images a second of a status line; None of any other."""
    found = _RATE.match(line)
    return float(found[1]) if found else None
