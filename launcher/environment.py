"""Run-file keys in environment variables: `STREAMREP_TRAIN__LR=1e-3` is `--train.lr 1e-3`.

Section and key stand in capitals with two underscores between them, a key inside a table after two more
(`STREAMREP_MODEL__ENCODER__HIDDEN_SIZE`). A name without two underscores is nobody's business here.
"""

from collections.abc import Mapping

PREFIX = "STREAMREP_"
SEPARATOR = "__"


def environment_overrides(environment: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(key, text, name of the variable) of each that sets a key, by name. Keys may turn out to be unknown."""
    return [
        (name.removeprefix(PREFIX).lower().replace(SEPARATOR, "."), text, name)
        for name, text in sorted(environment.items())
        if name.startswith(PREFIX) and SEPARATOR in name
    ]


def variable_of(key: str) -> str:
    """The variable that sets `section.key`."""
    return PREFIX + key.upper().replace(".", SEPARATOR)
