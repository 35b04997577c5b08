"""Means with their intervals as SVG, one row an arm, without a plotting library."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_ROW, _TEXT, _PLOT, _GAP = 22, 170, 280, 40
_COLOUR = {
    "pool": "#4878a8",
    "fresh": "#c2572c",
    "replay": "#5a8f3c",
    "drawings": "#8a5fa8",
    "untrained": "#777777",
}


def write_intervals(path: Path, entries: Sequence[Mapping[str, Any]], results: Mapping[str, str]) -> None:
    """One panel a result (its key in the entries, and its title): a dot at the mean, a line as long as its
    interval.
    """
    width = _TEXT + len(results) * (_PLOT + _GAP)
    height = _ROW * (len(entries) + 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, entry in enumerate(entries):
        parts.append(f'<text x="8" y="{_row(i) + 4}">{escape(entry["arm"])}</text>')
    for place, (key, title) in enumerate(results.items()):
        parts += _panel(_TEXT + place * (_PLOT + _GAP), entries, key, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _row(index: int) -> int:
    return _ROW * (index + 2)


def _panel(left: int, entries: Sequence[Mapping[str, Any]], key: str, title: str) -> list[str]:
    found = [entry[key] for entry in entries]
    # Of a single seed there is no interval: it is not a number, and not drawn.
    halves = [value["interval"] if value["interval"] == value["interval"] else 0.0 for value in found]
    low = min(value["mean"] - half for value, half in zip(found, halves, strict=True))
    high = max(value["mean"] + half for value, half in zip(found, halves, strict=True))
    scale = _PLOT / ((high - low) or 1.0)
    parts = [f'<text x="{left}" y="{_ROW - 6}" font-weight="bold">{escape(title)}</text>']
    bottom = _row(len(entries)) - 6
    for share in (0, 0.5, 1):
        x, value = left + share * _PLOT, low + share * (high - low)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{_ROW}" y2="{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x}" y="{bottom + 14}" text-anchor="middle">{value:.1%}</text>')
    for i, (entry, value, half) in enumerate(zip(entries, found, halves, strict=True)):
        x, y, colour = left + (value["mean"] - low) * scale, _row(i), _COLOUR[entry["kind"]]
        parts.append(
            f'<line x1="{x - half * scale:.1f}" x2="{x + half * scale:.1f}" y1="{y}" y2="{y}"'
            f' stroke="{colour}" stroke-width="2"/>'
        )
        parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{colour}"/>')
    return parts
