"""Another run's ledger, read for its batches."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from protocol.errors import UserError
from trainer.composition import Held, Use
from trainer.plan import Plan

LEDGER = "ledger.sqlite"
_COMPARED_GROUPS = 100


class RecordedRun:
    """What a run trained on, step by step. Belongs to the training thread."""

    def __init__(self, folder: Path, plan: Plan, steps: int) -> None:
        """Raises UserError where that run has no ledger, was another plan's, or did not get to `steps`."""
        self._folder = folder
        path = folder / LEDGER
        try:
            self._db = sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise self._refused("a folder of a run with a ledger", str(error)) from error
        try:
            self._check(plan, steps)
        except BaseException:
            self._db.close()
            raise

    def _check(self, plan: Plan, steps: int) -> None:
        [(last,)] = self._db.execute("SELECT max(step) FROM uses")
        if (last or 0) < steps:
            raise self._refused(f"run.max_steps = {steps} recorded steps", f"{last or 0} steps")
        columns = "SELECT group_id, caption_id, seeds, source FROM groups LIMIT ?"
        for group_id, caption, seeds, source in self._db.execute(columns, (_COMPARED_GROUPS,)):
            ticket = plan.ticket(group_id)
            # A group of a pool has the seeds of the images that were taken for it.
            is_other = source == "online" and list(ticket.seeds) != json.loads(seeds)
            if ticket.caption_id != caption or is_other:
                raise self._refused(
                    f"the run's own plan, with caption {caption} for group {group_id}",
                    f"caption {ticket.caption_id}, or other seeds",
                )

    def close(self) -> None:
        """Closes the ledger."""
        self._db.close()

    def batch(self, step: int) -> list[Use]:
        """(group_id, use) in the order of the batch."""
        return self._db.execute(
            "SELECT group_id, use FROM uses WHERE step = ? ORDER BY rank, slot", (step,)
        ).fetchall()

    def needed_after(self, step: int) -> Iterator[int]:
        """Every group of the later steps once, in the order in which they first need it."""
        first_uses = (
            "SELECT group_id FROM uses AS this WHERE step = ? AND NOT EXISTS (SELECT 1 FROM uses AS before"
            " WHERE before.group_id = this.group_id AND before.step > ? AND before.step < this.step)"
            " ORDER BY rank, slot"
        )
        [(last,)] = self._db.execute("SELECT max(step) FROM uses")
        # A step may hold no new group at all, and later ones still do.
        for later in range(step + 1, last + 1):
            for (group_id,) in self._db.execute(first_uses, (later, step)).fetchall():
                yield group_id

    def held(self, step: int) -> list[Held]:
        """(group_id, uses so far, step of the last one) of the groups that steps after `step` use again."""
        return self._db.execute(
            "SELECT group_id, max(use), max(step) FROM uses WHERE step <= ? AND group_id IN"
            " (SELECT group_id FROM uses WHERE step > ?) GROUP BY group_id ORDER BY group_id",
            (step, step),
        ).fetchall()

    def is_over(self, group_id: int, step: int) -> bool:
        """Whether no step after `step` uses that group."""
        query = "SELECT 1 FROM uses WHERE group_id = ? AND step > ? LIMIT 1"
        return self._db.execute(query, (group_id, step)).fetchone() is None

    def is_pools(self, group_id: int) -> bool:
        """Whether the run read that group from its pool, rather than drawing it."""
        [(source,)] = self._db.execute("SELECT source FROM groups WHERE group_id = ?", (group_id,))
        return bool(source == "pool")

    def digest(self, group_id: int) -> str:
        """xxh3-64 of its pixels."""
        [(digest,)] = self._db.execute("SELECT digest FROM groups WHERE group_id = ?", (group_id,))
        return str(digest)

    def _refused(self, expected: str, got: str) -> UserError:
        return UserError(
            "run can't be replayed",
            expected=expected,
            got=got,
            where=str(self._folder / LEDGER),
            mend="set pool.replay to the folder of the run that pool.dir recorded, and restore its settings",
        )
