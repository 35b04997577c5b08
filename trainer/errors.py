"""Errors of the trainer.

protocol.errors.StreamrepError
├── protocol.errors.UserError
│   └── PoolDamagedError     more of a pool's images are damaged than the run file allows
├── DamagedImageError        one image of a pool can't be used; counted by reason and skipped
├── FeedFailedError          the feed's thread ended; carries its reason into the loop
├── TooManyDeadLettersError  over 1% of at least 20 tickets can't be drawn by any worker
├── DeadLetterError          in ticket order one group that no worker can draw ends the run
├── PeerFailedError          another rank has failed or died; carries its reason
├── NonFiniteLossError       the loss or its gradient is not a number; raised before the weights are touched
├── SteeredError             somebody asked a waiting trainer for something; the loop does it and goes on
└── StopRequestedError       somebody asked the run to end; the loop checkpoints and leaves
"""

from protocol.errors import StreamrepError, UserError


class PoolDamagedError(UserError):
    """So much of a pool can't be used that training on the rest would be another run."""


class DamagedImageError(StreamrepError):
    """An image of a pool that can't be used. `reason` is one of a small fixed set, a counter's label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class FeedFailedError(StreamrepError):
    """The background thread that talks to workers has ended with an error."""


class TooManyDeadLettersError(StreamrepError):
    """So many tickets fail everywhere that the cause is the model or the captions, not a worker."""


class DeadLetterError(StreamrepError):
    """A group that ticket order can't do without can't be drawn by any worker."""


class PeerFailedError(StreamrepError):
    """Another rank of the run has failed or died, so this one can't go on."""


class NonFiniteLossError(StreamrepError):
    """The loss of a step, or a part of its gradient, is infinite or not a number."""


class SteeredError(StreamrepError):
    """A wish came through the control socket while the trainer was waiting."""


class StopRequestedError(StreamrepError):
    """A stop was asked for while the trainer was waiting or evaluating."""


STOPPING_ERRORS = (
    DeadLetterError,
    FeedFailedError,
    NonFiniteLossError,
    PeerFailedError,
    PoolDamagedError,
)
"""Of these every rank learns at the same step, and all leave the weights of the step before whole."""
