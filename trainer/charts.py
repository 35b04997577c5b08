"""Line charts as SVG text, for a report that is one file. Colours come from the page's CSS variables."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 28
POINTS_MAX = 600
TICKS = 5

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points (x, y) by label."""


def chart_svg(series: Series, *, x_label: str = "step", y_format: str = "g") -> str:
    """One chart with a line for each series, y ticks in `y_format` (`g` or `%`), and hover text on points.

    Points that are not finite are left out. A series that has none left is left out with its label.
    """
    lines = {label: _thinned([p for p in points if _finite(p)]) for label, points in series.items()}
    lines = {label: points for label, points in lines.items() if points}
    if not lines:
        return '<p class="empty">No values yet.</p>'
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_ticks, y_ticks = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    # The x axis ends at its data; the y axis at its outermost ticks.
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1
    y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(lines))}">']
    for y in y_ticks:
        _, row = at(x_low, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{row:.1f}" y2="{row:.1f}"/>')
        parts.append(_text(LEFT - 6, row + 4, "end", _number(y, y_format, y_ticks[1] - y_ticks[0])))
    for x in x_ticks:
        if x_low <= x <= x_high:
            column, _ = at(x, y_low)
            parts.append(_text(column, HEIGHT - BOTTOM + 16, "middle", f"{x:,g}"))
    parts.append(_text(LEFT - 16, HEIGHT - BOTTOM + 16, "end", x_label))
    for index, (label, points) in enumerate(lines.items()):
        parts.append(_line(label, [(at(x, y), x, y) for x, y in points], index, x_label, y_format))
    return "".join(parts) + "</svg>" + (_legend(list(lines)) if len(lines) > 1 else "")


def nice_ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """About `count` round numbers, in steps of 1, 2 or 5 x 10^k, from at most `low` to at least `high`."""
    if high <= low:
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _line(
    label: str,
    points: Sequence[tuple[tuple[float, float], float, float]],
    index: int,
    x_label: str,
    y_format: str,
) -> str:
    path = " ".join(f"{column:.1f},{row:.1f}" for (column, row), _, _ in points)
    parts = [f'<polyline class="s{index % 5}" points="{path}"/>']
    # Few points are shown as dots, each the moment of a rare measurement; many only answer the pointer.
    shown = 'r="3"' if len(points) <= 60 else 'r="4" opacity="0"'
    for (column, row), x, y in points:
        hint = escape(f"{label}: {_number(y, y_format)} at {x_label} {x:,g}")
        parts.append(
            f'<circle class="s{index % 5}" cx="{column:.1f}" cy="{row:.1f}" {shown}>'
            f"<title>{hint}</title></circle>"
        )
    return "".join(parts)


def _legend(labels: Sequence[str]) -> str:
    items = (
        f'<span><i class="s{index % 5}"></i>{escape(label)}</span>' for index, label in enumerate(labels)
    )
    return '<p class="legend">' + "".join(items) + "</p>"


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float, y_format: str, step: float | None = None) -> str:
    """A tick needs only as many digits as tell it from the next; a hint gets four."""
    if y_format == "%":
        digits = 1 if step is None or step < 0.01 else 0
        return f"{value:.{digits}%}"
    if step is None:
        return f"{value:,.4g}"
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about POINTS_MAX points, the last among them."""
    stride = max(1, math.ceil(len(points) / POINTS_MAX))
    return [*points[:-1:stride], points[-1]] if points else []


def _finite(point: tuple[float, float]) -> bool:
    return all(math.isfinite(value) for value in point)
