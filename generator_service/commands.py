"""What the compute thread tells the I/O thread."""

from dataclasses import dataclass

from generator_service.channel import Outcome
from generator_service.conversation import Equipment


@dataclass(frozen=True, kw_only=True)
class Equip:
    """The engine is warm."""

    equipment: Equipment
    groups_per_batch: int
    batch_seconds: float


@dataclass(frozen=True)
class NextBatch:
    """The compute thread has nothing to do."""


@dataclass(frozen=True, kw_only=True)
class HandOver:
    """What became of the batch under way."""

    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Leave:
    """The worker is over."""


Command = Equip | NextBatch | HandOver | Leave
