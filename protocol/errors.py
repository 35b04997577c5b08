"""Errors that every room may raise or extend.

StreamrepError
├── UserError            bad input; the command prints it as one line and exits with 2
└── MalformedMessageError  a peer sent what the protocol does not allow; counted by reason, never fatal
"""


class StreamrepError(Exception):
    """Base of every error this project raises on purpose."""


class UserError(StreamrepError):
    """Input that a person can mend. Its text is one line: what, expected, got, where, how to mend."""

    def __init__(self, what: str, *, expected: str, got: str, where: str, mend: str) -> None:
        parts = f"{where}: {what}: expected {expected}, got {got}; {mend}"
        super().__init__(" ".join(parts.split()))


class MalformedMessageError(StreamrepError):
    """A message that breaks the protocol. `reason` is one of a small fixed set, used as a counter's label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
