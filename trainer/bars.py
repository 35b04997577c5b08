"""Bar charts as SVG text, in the style of trainer.charts."""

from collections.abc import Mapping
from html import escape

WIDTH, ROW, BAR, LABEL, VALUE = 460, 22, 14, 190, 62
LABEL_CHARACTERS = 30


def bars_svg(shares: Mapping[str, float], intervals: Mapping[str, float] | None = None) -> str:
    """A horizontal bar for each share of 0 to 1, with its value; half widths of intervals as whiskers."""
    if not shares:
        return '<p class="empty">No values yet.</p>'
    across = WIDTH - LABEL - VALUE
    height = ROW * len(shares)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(", ".join(shares))}">']
    for index, (label, share) in enumerate(shares.items()):
        top, middle = index * ROW + (ROW - BAR) / 2, index * ROW + ROW / 2
        shown = label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1] + "…"
        length = across * min(max(share, 0.0), 1.0)
        parts.append(_text(LABEL - 8, middle + 4, "end", shown))
        parts.append(
            f'<rect x="{LABEL}" y="{top:.1f}" width="{length:.1f}" height="{BAR}" rx="2" fill="var(--c0)">'
            f"<title>{escape(label)}: {share:.2%}</title></rect>"
        )
        end = LABEL + length
        if half := (intervals or {}).get(label, 0.0) * across:
            parts.append(
                f'<line x1="{end - half:.1f}" x2="{end + half:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"'
                ' stroke="var(--ink)"/>'
            )
            end += half
        parts.append(_text(end + 6, middle + 4, "start", f"{share:.1%}"))
    return "".join(parts) + "</svg>"


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
