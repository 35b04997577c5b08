"""The record of every use of every group: SQLite in WAL mode, on a local disk, written by rank 0.

`uses` is the truth about reuse. A resume deletes what is newer than its checkpoint, so that the ledger always
holds exactly the trainings that are behind the weights.
"""

import json
import sqlite3
import time
from pathlib import Path
from typing import Literal

from trainer.batch import Batch
from trainer.config import Mode

Origin = Literal["run file", "ctl"]
"""Who decided on a mode: the run file at a start, or a person during the run."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS captions (
    caption_id INTEGER PRIMARY KEY,
    caption TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS groups (
    group_id INTEGER PRIMARY KEY,
    caption_id INTEGER NOT NULL REFERENCES captions,
    source TEXT NOT NULL,
    first_view INTEGER NOT NULL,
    seeds TEXT NOT NULL,      -- JSON list, one a view; null where a pool does not tell
    guidance TEXT NOT NULL,   -- JSON list, one a view
    worker TEXT NOT NULL,
    content TEXT NOT NULL,
    engine TEXT NOT NULL,
    digest TEXT NOT NULL      -- xxh3-64 of the pixels, uint8 NHWC
) STRICT;
CREATE TABLE IF NOT EXISTS uses (
    group_id INTEGER NOT NULL REFERENCES groups,
    step INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    slot INTEGER NOT NULL,    -- place in the rank's batch
    use INTEGER NOT NULL,     -- 1 at the group's first training
    PRIMARY KEY (step, rank, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uses_by_group ON uses (group_id);
CREATE TABLE IF NOT EXISTS dead_letters (
    group_id INTEGER PRIMARY KEY,
    reason TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS switches (
    step INTEGER NOT NULL,    -- the first from which it holds
    setting TEXT NOT NULL,    -- online, offline, mixed, pause or resume
    origin TEXT NOT NULL,     -- run file or ctl
    time REAL NOT NULL        -- Unix time
) STRICT;
"""
_MODES = "('online', 'offline', 'mixed')"


class Ledger:
    """One open ledger file. Every method is called from the training thread."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    def record(self, batch: Batch, rank: int = 0) -> None:
        """Writes one training step, all of it or nothing."""
        captions = [(g.ticket.caption_id, g.ticket.caption) for g in batch.groups]
        groups = [
            (
                g.group_id,
                g.ticket.caption_id,
                g.source,
                g.ticket.first_view,
                json.dumps(g.seeds),
                json.dumps(g.guidance),
                g.worker,
                g.content,
                g.engine,
                g.digest,
            )
            for g, use in zip(batch.groups, batch.uses, strict=True)
            if use == 1
        ]
        uses = [
            (g.group_id, batch.step, rank, slot, use)
            for slot, (g, use) in enumerate(zip(batch.groups, batch.uses, strict=True))
        ]
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO captions VALUES (?, ?)", captions)
        self._db.executemany("INSERT OR REPLACE INTO groups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", groups)
        self._db.executemany("INSERT INTO uses VALUES (?, ?, ?, ?, ?)", uses)
        self._db.execute("COMMIT")

    def record_dead_letters(self, reasons: dict[int, str]) -> None:
        """Notes tickets that were given up."""
        self._db.executemany("INSERT OR REPLACE INTO dead_letters VALUES (?, ?)", reasons.items())

    def record_switch(self, step: int, setting: Mode | Literal["pause", "resume"], origin: Origin) -> None:
        """From that step on the run goes on so. A mode takes the place of those recorded for it or later."""
        self._db.execute("BEGIN")
        if setting not in ("pause", "resume"):
            self._db.execute(f"DELETE FROM switches WHERE step >= ? AND setting IN {_MODES}", (step,))
        self._db.execute("INSERT INTO switches VALUES (?, ?, ?, ?)", (step, setting, origin, time.time()))
        self._db.execute("COMMIT")

    def modes_after(self, step: int) -> dict[int, Mode]:
        """Modes by the first step that is to be trained in them, beyond that step."""
        query = f"SELECT step, setting FROM switches WHERE step > ? AND setting IN {_MODES}"
        return dict(self._db.execute(query, (step,)).fetchall())

    def flush(self) -> None:
        """Brings everything recorded so far to the disk; called before a checkpoint counts as whole."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def trim(self, step: int, dead_letters: dict[int, str]) -> None:
        """Forgets what happened after `step`: its weights are gone."""
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM uses WHERE step > ?", (step,))
        self._db.execute("DELETE FROM groups WHERE group_id NOT IN (SELECT group_id FROM uses)")
        # Modes stay: a resumed run switches again at the same step.
        self._db.execute(f"DELETE FROM switches WHERE step > ? AND setting NOT IN {_MODES}", (step,))
        self._db.execute("DELETE FROM dead_letters")
        self._db.executemany("INSERT INTO dead_letters VALUES (?, ?)", dead_letters.items())
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()
