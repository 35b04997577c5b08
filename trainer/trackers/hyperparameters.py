"""A run file as hyperparameters: one flat name and one plain value each."""

import json
from typing import Any

Value = bool | int | float | str

_OTHER_SECTIONS = ("monitor", "log")
"""These change nothing of what is trained."""


def hyperparameters_of(resolved: dict[str, Any]) -> dict[str, Value]:
    """`{"train": {"lr": 1e-3}}` -> `{"train.lr": 1e-3}`, named as on the command line; lists become JSON.

    Keys without a value are left out, and so are the sections that change nothing of what is trained.
    """
    return _flat({name: table for name, table in resolved.items() if name not in _OTHER_SECTIONS}, "")


def _flat(table: dict[str, Any], prefix: str) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            found[prefix + key] = json.dumps(value, ensure_ascii=False)
        elif value is not None:
            found[prefix + key] = value
    return found
