"""A horizontal bar chart as SVG, without a plotting library."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

_ROW, _TEXT, _BARS = 22, 420, 360


def write_bars(path: Path, bars: Sequence[tuple[str, float]], title: str) -> None:
    """One bar a label, as long as its value."""
    longest = max((value for _, value in bars), default=0.0) or 1.0
    height = _ROW * (len(bars) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_TEXT + _BARS + 80}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="{_ROW - 6}" font-weight="bold">{escape(title)}</text>',
    ]
    for i, (label, value) in enumerate(bars, start=1):
        top, width = i * _ROW, _BARS * value / longest
        lines += [
            f'<text x="8" y="{top + 15}">{escape(label)}</text>',
            f'<rect x="{_TEXT}" y="{top + 3}" width="{width:.1f}" height="{_ROW - 6}" fill="#4878a8"/>',
            f'<text x="{_TEXT + width + 6:.1f}" y="{top + 15}">{value:.3g}</text>',
        ]
    path.write_text("\n".join([*lines, "</svg>"]) + "\n", encoding="utf-8")
