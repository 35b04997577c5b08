"""Errors of the launcher.

protocol.errors.StreamrepError
├── protocol.errors.UserError
│   ├── RunFileError     a run file or an override that can't be used
│   └── KeysError        a key that can't be made, admitted or revoked
└── ChildFailedError     a process of a local run ended badly; carries the exit code of the whole run
"""

from protocol.errors import StreamrepError, UserError


class RunFileError(UserError):
    """A run file or an override that can't be used. One line, as every UserError."""


class KeysError(UserError):
    """A key that can't be made, admitted or revoked."""


class ChildFailedError(StreamrepError):
    """The trainer or a generator of a local run failed. `code` is what the command exits with."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code
