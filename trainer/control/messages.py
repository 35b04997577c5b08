"""What `streamrep ctl` and a trainer say to each other: one line of JSON each way. See docs/control.md."""

from typing import Literal

from msgspec import Struct

from trainer.config import Mode

VERSION = 1
SOCKET = "control.sock"
"""In the run's folder."""
LINE_BYTES_MAX = 4096


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person wants."""

    version: int = VERSION
    command: Literal["status", "pause", "resume", "mode"]
    mode: Mode | None = None
    """With `mode`: the one wanted."""


class Status(Struct, frozen=True, kw_only=True):
    """How a run is doing. What is not known before the first step of a process is null."""

    run: str
    step: int
    """Trained so far."""
    max_steps: int
    mode: Mode
    paused: bool
    fresh_share: float | None
    """Of the images trained on since the last row of metrics.jsonl."""
    waiting_share: float | None
    """Of the time since then."""
    mean_uses: float | None
    """Over the run."""
    reuse: float | None
    """That stream.reuse = auto asks for."""
    workers: int
    stall: str | None
    """Why the trainer stands still at this moment."""
    stall_seconds: float


class Reply(Struct, frozen=True, kw_only=True):
    """The answer to a request."""

    ok: bool
    text: str = ""
    """What was done, or in one line why it was refused."""
    status: Status | None = None
