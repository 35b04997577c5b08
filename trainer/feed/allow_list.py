"""The admitted workers, read again while the run goes on: deleting a file there revokes its key."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from protocol.errors import UserError
from protocol.keys import read_public

SUFFIX = ".public"
READ_AGAIN_SECONDS = 1.0
"""A change within one tick of the folder's clock, or inside a file, leaves the folder's time as it was."""
_MEND = "`streamrep keys revoke` it or put a whole key there"


def read_admitted(folder: Path) -> dict[str, str]:
    """Public key by name of every file NAME.public; no folder is nobody. Raises UserError for a bad file."""
    return {path.name.removesuffix(SUFFIX): read_public(path, _MEND) for path in key_files(folder)}


def key_files(folder: Path) -> list[Path]:
    """The files that admit somebody, by name; none where the folder is missing or can't be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX) and path.name[0] != ".")
    except OSError:
        return []


class AllowList:
    """Fails closed: what can't be read admits nobody."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the folder once. Raises UserError for a bad file, which later is passed over."""
        self._folder = folder
        self._clock = clock
        self._changed_at = self._folder_time()
        self._read_at = clock()
        self._keys = frozenset(read_admitted(folder).values())

    def admits(self, key: str) -> bool:
        """Whether this public key, in Z85, is on the list as last refreshed."""
        return key in self._keys

    def refresh(self) -> None:
        """Reads the folder again if it has changed or a second has passed. Cheap enough for every message."""
        now, changed_at = self._clock(), self._folder_time()
        if changed_at == self._changed_at and now - self._read_at < READ_AGAIN_SECONDS:
            return
        self._changed_at, self._read_at = changed_at, now
        keys = set()
        for path in key_files(self._folder):
            with contextlib.suppress(UserError):  # half copied, or deleted since the folder was listed
                keys.add(read_public(path, _MEND))
        self._keys = frozenset(keys)

    def _folder_time(self) -> int:
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0
