"""What the compute thread tells the I/O thread."""

from dataclasses import dataclass

from generator_service.conversation import Equipment


@dataclass(frozen=True, kw_only=True)
class Equip:
    """The engine is warm."""

    equipment: Equipment
    groups_per_batch: int


@dataclass(frozen=True)
class Leave:
    """The worker is over."""


Command = Equip | Leave
