"""What /healthz answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Health:
    """How a process is doing, and in `reason` why that is thought, in one line for people."""

    status: Literal["healthy", "stalled", "failed"]
    reason: str
    facts: Mapping[str, Any]
    """What else JSON can hold and a person would ask next."""

    @property
    def code(self) -> HTTPStatus:
        """200, or 503 for one that somebody has to look at."""
        return HTTPStatus.OK if self.status == "healthy" else HTTPStatus.SERVICE_UNAVAILABLE

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"status": self.status, "reason": self.reason, **self.facts}
