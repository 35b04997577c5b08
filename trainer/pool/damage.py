"""Counts what of a pool can't be used, up to a stated limit."""

from collections import Counter
from pathlib import Path

from trainer.errors import PoolDamagedError

EXAMPLES = 8


class Damage:
    """Each name counts once, however often it is met. No limit (None) is for looking at a pool."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        self._folder = folder
        self._limit = limit
        self._seen: set[str] = set()
        self.reasons: Counter[str] = Counter()
        """By reason: missing, outside, unreadable, truncated, checksum, too_large, undecodable, no_caption,
        no_images."""
        self.examples: list[str] = []
        """The first few, as `name (reason: detail)`."""

    def __len__(self) -> int:
        return len(self._seen)

    def count(self, name: str, reason: str, detail: str = "") -> None:
        """Notes one image, or one shard. Raises PoolDamagedError beyond the limit."""
        if name in self._seen:
            return
        self._seen.add(name)
        self.reasons[reason] += 1
        told = f"{name} ({reason}{': ' + detail if detail else ''})"
        if len(self.examples) < EXAMPLES:
            self.examples.append(told)
        if self._limit is not None and len(self._seen) > self._limit:
            counts = ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())
            raise PoolDamagedError(
                "pool is damaged",
                expected=f"at most pool.max_damaged = {self._limit} images that can't be used",
                got=f"{len(self._seen)} ({counts}), the last {told}",
                where=str(self._folder),
                mend="`streamrep pool inspect` lists them; fill or copy the pool again, or raise"
                " --pool.max_damaged",
            )
