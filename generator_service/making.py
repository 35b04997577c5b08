"""How an engine that is built is had: its key in the cache, its building, its loading."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generator_service.forward import Forward


@dataclass(frozen=True, kw_only=True)
class Making:
    """`build` fills an empty folder, `load` reads one that was filled. Both raise UserError."""

    recipe: dict[str, Any]
    build: Callable[[Path], None]
    load: Callable[[Path], Forward]
