"""Numbered points in panels beside each other as SVG, with a list of what the numbers mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from trainer.charts import nice_ticks

_ROW, _WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 16, 300, 230, 46, 34, 62
_COLOUR, _LINE = "#4878a8", "#c2572c"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One result over the common x."""

    title: str
    points: Mapping[str, tuple[float, float]]
    """(x, y) by label. A label has the same number in every panel."""
    line: float | None = None
    """A height to compare with, drawn across."""


def write_scatter(path: Path, panels: Sequence[Panel], x_title: str, line_title: str) -> None:
    """Labels are numbered in the order of the first panel."""
    labels = list(panels[0].points)
    width = len(panels) * (_WIDTH + _GAP)
    bottom = _TOP + _HEIGHT
    height = bottom + 52 + _ROW * (len(labels) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        parts += _panel(place * (_WIDTH + _GAP) + _LEFT, panel, labels, x_title)
    for number, label in enumerate(labels, start=1):
        parts.append(_text(_LEFT, bottom + 46 + _ROW * (number - 1), f"{number}  {label}"))
    note = bottom + 46 + _ROW * len(labels)
    parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + 24}" y1="{note - 4}" y2="{note - 4}" stroke="{_LINE}"/>')
    parts.append(_text(_LEFT + 30, note, line_title))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _panel(left: float, panel: Panel, labels: Sequence[str], x_title: str) -> list[str]:
    xs = [x for x, _ in panel.points.values()]
    ys = [y for _, y in panel.points.values()] + ([panel.line] if panel.line is not None else [])
    x_ticks, y_ticks = nice_ticks(0, max(xs)), nice_ticks(min(ys), max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = x / x_ticks[-1], (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * _WIDTH, _TOP + (1 - up) * _HEIGHT

    right, bottom = left + _WIDTH, _TOP + _HEIGHT
    parts = [f'<text x="{left}" y="{_TOP - 14}" font-weight="bold">{escape(panel.title)}</text>']
    for tick in y_ticks:
        y = at(0, tick)[1]
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:.3g}", "end"))
    parts += [_text(at(tick, y_ticks[0])[0], bottom + 16, f"{tick:g}", "middle") for tick in x_ticks]
    parts.append(_text((left + right) / 2, bottom + 30, x_title, "middle"))
    if panel.line is not None:
        y = at(0, panel.line)[1]
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_LINE}"/>')
    for label, point in panel.points.items():
        x, y = at(*point)
        number = labels.index(label) + 1
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_COLOUR}"><title>{escape(label)}</title>'
        )
        parts.append("</circle>" + _text(x + 6, y - 5, str(number)))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
