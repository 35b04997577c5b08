"""Reads a ledger without ever writing to it, also while a run goes on."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from protocol.errors import UserError
from protocol.tickets import Ticket
from trainer.errors import StopRequestedError
from trainer.ledger_questions import Question

INTERRUPT_OPCODES = 10_000
"""SQLite asks after about so many of its steps whether to give up."""

Row = Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A table; its rows are read as they are asked for."""

    columns: tuple[str, ...]
    rows: Iterator[Row]


@dataclass(frozen=True, kw_only=True)
class RecordedGroup:
    """One row of `groups` with its caption."""

    ticket: Ticket
    source: str
    worker: str
    content: str
    engine: str
    digest: str


class LedgerReader:
    """An open ledger. Methods raise UserError where the file is no ledger of this version, and
    StopRequestedError once they were ended."""

    def __init__(self, path: Path, stopped: Callable[[], bool] = lambda: False) -> None:
        """`stopped` is asked now and then during long questions; answering true ends them."""
        self._path = path
        self._stopped = stopped
        if not path.is_file():
            raise UserError(
                "no ledger",
                expected="a run that has trained",
                got="no ledger.sqlite",
                where=str(path.parent),
                mend="wait for its first step, or name another run",
            )
        # A trainer that has the ledger open, or was killed with it open, left a log beside it, through which
        # its last steps must be read. Without one nothing may be made here: the folder may be read-only.
        live = path.with_name(path.name + "-wal").exists()
        uri = f"{path.absolute().as_uri()}?{'mode=ro' if live else 'immutable=1'}"
        with self._named_errors():
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._db.set_progress_handler(stopped, INTERRUPT_OPCODES)
            self._db.execute("SELECT 1 FROM groups, uses, captions, dead_letters LIMIT 0")

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def ask(
        self,
        question: Question,
        *,
        group_id: int | None = None,
        caption_id: int | None = None,
        limit: int | None = None,
    ) -> Answer:
        """The answer, of all groups or of one group or caption alone; at most `limit` rows."""
        filters = {"group_id": group_id, "caption_id": caption_id}
        given = {name: value for name, value in filters.items() if value is not None}
        assert question.takes_filters or not given, "this question is about all groups"
        where = " AND ".join(f"groups.{name} = :{name}" for name in given)
        sql = question.sql.replace("{where}", f"WHERE {where}" if where else "")
        if limit is not None:
            sql, given = f"{sql} LIMIT :limit", given | {"limit": limit}
        with self._named_errors():
            cursor = self._db.execute(sql, given)
        return Answer(columns=tuple(column[0] for column in cursor.description), rows=self._rows(cursor))

    def group(self, group_id: int) -> RecordedGroup | None:
        """What is recorded of one group; None for one that was never trained on."""
        with self._named_errors():
            row = self._db.execute(
                "SELECT caption_id, caption, first_view, seeds, guidance, source, worker, content, engine,"
                " digest FROM groups JOIN captions USING (caption_id) WHERE group_id = ?",
                (group_id,),
            ).fetchone()
        if row is None:
            return None
        caption_id, caption, first_view, seeds, guidance, source, worker, content, engine, digest = row
        ticket = Ticket(
            group_id=group_id,
            caption_id=caption_id,
            caption=caption,
            first_view=first_view,
            seeds=msgspec.json.decode(seeds, type=tuple[int, ...]),
            guidance=msgspec.json.decode(guidance, type=tuple[float, ...]),
        )
        return RecordedGroup(
            ticket=ticket, source=source, worker=worker, content=content, engine=engine, digest=digest
        )

    def dead_letter(self, group_id: int) -> str | None:
        """Why that group was given up; None for one that was not."""
        with self._named_errors():
            row = self._db.execute(
                "SELECT reason FROM dead_letters WHERE group_id = ?", (group_id,)
            ).fetchone()
        return None if row is None else str(row[0])

    def extent(self) -> tuple[int, int, int]:
        """How many groups were trained on, and the lowest and the highest of their ids, 0 where none was."""
        with self._named_errors():
            count, low, high = self._db.execute(
                "SELECT COUNT(*), COALESCE(MIN(group_id), 0), COALESCE(MAX(group_id), 0) FROM groups"
            ).fetchone()
        return count, low, high

    def _rows(self, cursor: sqlite3.Cursor) -> Iterator[Row]:
        with self._named_errors():
            for row in cursor:  # noqa: UP028 - `yield from` would close the cursor too, perhaps after the file
                yield row

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turns what SQLite raises into one line that names the file."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if self._stopped():
                raise StopRequestedError("stopped before the ledger had answered") from error
            raise UserError(
                "the ledger can't be read",
                expected="a ledger that this version wrote",
                got=str(error),
                where=str(self._path),
                mend="name another run, or look at the file with sqlite3",
            ) from error
