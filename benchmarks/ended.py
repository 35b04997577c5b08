"""Runs that have ended, a line of runs.jsonl each, under a key of all that decides them; and the others."""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a process is asked for."""

    key: str
    """A digest of all that decides its results: runs of one key are one run."""
    label: str
    words: tuple[Any, ...]
    """The arguments of the job."""
    cost: float = 1.0
    """For how long it takes beside the others."""
    about: Row = field(default_factory=dict)
    """Recorded before its results."""


class EndedRuns:
    """The rows of a runs.jsonl."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        # A line that was cut off by a kill is a run that has not ended.
        whole = [line for line in lines if line.endswith("}")]
        self._rows = {row["key"]: row for row in map(json.loads, whole)}

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def row(self, key: str) -> Row:
        """Key, what it is about, and results. Raises KeyError for a run that has not ended."""
        found: Row = self._rows[key]
        return found

    def add(self, run: Run, found: Row) -> None:
        """Appends at once, so that a kill loses the runs in flight alone."""
        row = {"key": run.key, **run.about, **found}
        self._rows[run.key] = row
        with self._path.open("a", encoding="utf-8") as file:
            # The newline comes first: it ends a line that a kill has cut off.
            file.write("\n" + json.dumps(row))


def complete(ended: EndedRuns, job: Callable[..., Row], runs: Sequence[Run], processes: int) -> None:
    """Calls `job` in processes of their own for every run that has not ended, each key once; tells on stderr
    how far it is. The first error of a run is raised once those in flight have ended, and are recorded."""
    missing = list({run.key: run for run in runs if run.key not in ended}.values())
    total, past = sum(run.cost for run in missing), 0.0
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as executor:
        began = time.monotonic()
        waiting = {executor.submit(job, *run.words): run for run in missing}
        error: BaseException | None = None
        try:
            for number, done in enumerate(as_completed(waiting), start=1):
                if done.cancelled():
                    continue
                if failed := done.exception():
                    error = error or failed
                    for other in waiting:
                        other.cancel()
                    continue
                run = waiting[done]
                ended.add(run, done.result())
                past += run.cost
                left = (time.monotonic() - began) / past * (total - past)
                text = f"{number} of {len(missing)} runs: {run.label}, {left:.0f} s left"
                print(text, file=sys.stderr, flush=True)
        finally:
            # Those that wait would be run to their end otherwise, after an interrupt as well.
            executor.shutdown(cancel_futures=True)
    if error:
        raise error
