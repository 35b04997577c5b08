"""Progress of a run for the person watching: one rewritten line on a terminal, a line each 10 s elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

TERMINAL_SECONDS = 0.25
PLAIN_SECONDS = 10.0
WIDTH_MIN = 20


class Progress:
    """Shows the rows that also go to metrics.jsonl, one `update` a row, and full lines by `say`."""

    def __init__(
        self,
        total_steps: int,
        stream: TextIO | None = None,
        *,
        unit: str = "step",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`unit`: what is counted, for the line; rows call it `step` whatever it is."""
        self._total_steps = total_steps
        self._unit = unit
        self._stream = stream or sys.stderr
        self._clock = clock
        self._on_terminal = self._stream.isatty()
        self._seconds_between = TERMINAL_SECONDS if self._on_terminal else PLAIN_SECONDS
        self._drawn_at: float | None = None
        self._first: tuple[int, float] | None = None
        self._known: dict[str, Any] = {}
        self._stall = ""
        self._line = ""

    def update(self, row: Mapping[str, Any]) -> None:
        """Takes the newest row of metrics; keys it lacks keep their last value (evaluations are rare)."""
        now = self._clock()
        self._known.update(row)
        step = int(self._known.get("step", 0))
        self._first = self._first or (step, now)
        due = self._drawn_at is None or now - self._drawn_at >= self._seconds_between
        if due or step >= self._total_steps:
            self._drawn_at = now
            self._draw(self._format(step, now))

    def stall(self, text: str, step: int) -> None:
        """Puts why the run stands still after `step` behind it, until an empty text takes it away.

        Elsewhere than on a terminal the line is next due with a row; `say` is there for the moment itself.
        """
        self._stall = text
        self._known["step"] = step
        if self._on_terminal:
            self._draw(self._format(step, self._clock()))

    def say(self, text: str) -> None:
        """Prints a full line; the progress line goes on below it."""
        line = self._line
        self._clear()
        self._stream.write(text + "\n")
        if line and self._on_terminal:
            self._draw(line)
        self._stream.flush()

    def close(self) -> None:
        """Leaves the last line standing."""
        if self._line and self._on_terminal:
            self._stream.write("\n")
            self._stream.flush()
        self._line = ""

    def _format(self, step: int, now: float) -> str:
        row = {**self._known, "stall": self._stall or None}
        return format_row(row, self._total_steps, self._eta_seconds(step, now), self._unit)

    def _eta_seconds(self, step: int, now: float) -> float | None:
        """From the speed since this process began: steps of an earlier start say nothing about now."""
        if self._first is None:
            return None
        first_step, first_time = self._first
        if step <= first_step or now <= first_time:
            return None
        return (self._total_steps - step) * (now - first_time) / (step - first_step)

    def _draw(self, line: str) -> None:
        if not self._on_terminal:
            self._stream.write(line + "\n")
        else:
            # One column is kept free: a line as wide as the terminal wraps and can't be rewritten.
            width = max(WIDTH_MIN, shutil.get_terminal_size().columns - 1)
            shown = line if len(line) <= width else line[: width - 1] + "…"
            self._stream.write("\r\x1b[2K" + shown)
        self._stream.flush()
        self._line = line

    def _clear(self) -> None:
        if self._line and self._on_terminal:
            self._stream.write("\r\x1b[2K")
        self._line = ""


def format_row(
    row: Mapping[str, Any], total_steps: int, eta_seconds: float | None, unit: str = "step"
) -> str:
    """One line for a row of metrics; a missing or null key leaves its part out.

    The parts stand in order of interest, so that a narrow terminal cuts the least of them.
    """
    step = int(row.get("step", 0))
    parts = [f"{unit} {step}/{total_steps} {step / total_steps:.0%}"]
    if (stall := row.get("stall")) is not None:
        parts.append(stall)
    if eta_seconds is not None:
        parts.append(f"{duration(eta_seconds)} left")
    if (loss := row.get("loss")) is not None:
        excess = row.get("loss_excess")
        parts.append(f"loss {loss:.3f}" + ("" if excess is None else f" (+{excess:.3f})"))
    if (recall := row.get("recall_at_10")) is not None:
        untrained = row.get("recall_at_10_untrained")
        parts.append(f"R@10 {recall:.1%}" + ("" if untrained is None else f" (untrained {untrained:.1%})"))
    for key, form in (
        ("images_per_second", "{:.0f} trained/s"),
        ("generated_per_second", "{:.1f} generated/s"),
        ("fresh_fraction", "fresh {:.0%}"),
        ("reuse", "reuse {:.3g}"),
        ("waiting_share", "waiting {:.0%}"),
    ):
        if (value := row.get(key)) is not None:
            parts.append(form.format(value))
    if (workers := row.get("workers")) is not None:
        parts.append(f"{workers} worker" + ("" if workers == 1 else "s"))
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """`45s`, `3m05s`, `2h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
