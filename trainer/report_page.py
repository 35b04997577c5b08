"""The frame of a report: title, style, sections. Readable in light and dark; no scripts, no other files."""

from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2127; --faint: #667080; --rule: #e2e6ec;
  --tile: #f5f7fa;
  --c0: #2563a8; --c1: #c2570c; --c2: #2d7d46; --c3: #8b3fa0; --c4: #a8324a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e7ec; --faint: #98a2b1;
  --rule: #2c323b;
  --tile: #1c2127; --c0: #6aa9ee; --c1: #f0954d; --c2: #67c085; --c3: #c78adb; --c4: #ec7d92; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 28px 20px 60px; background: var(--paper); color:
  var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 36px 0 10px; }
.facts, small, .empty { color: var(--faint); } .facts { margin: 0 0 18px; }
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); }
.tiles div { background: var(--tile); border-radius: 8px; padding: 10px 14px; }
.tiles b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--faint); font-size: 13px; }
.charts { display: grid; gap: 22px 28px; grid-template-columns: repeat(auto-fill, minmax(min(100%,
  420px), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; font-size: 14px; margin-bottom: 4px; }
figcaption small { font-weight: 400; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--faint); font-size: 11px; }
svg .grid { stroke: var(--rule); } svg polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
svg circle:hover { opacity: 1; }
.legend { margin: 2px 0 0; font-size: 12.5px; color: var(--faint); }
.legend span { margin-right: 14px; } .legend i { display: inline-block; width: 12px; height: 3px;
  margin: 0 6px 3px 0; }
.strips { display: grid; gap: 16px 24px; grid-template-columns: repeat(auto-fill,
  minmax(min(100%, 400px), 1fr)); }
.strip img { max-width: 100%; border-radius: 6px; }
.wide, pre { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); text-align: right; font-weight:
  400; }
th:first-child { text-align: left; } tr:first-child th { color: var(--faint); font-size: 13px; }
pre { background: var(--tile); border-radius: 8px; padding: 14px; font-size: 12.5px; line-height: 1.45; }
""" + "".join(
    f"polyline.s{n} {{ stroke: var(--c{n}); }} circle.s{n} {{ fill: var(--c{n}); }} "
    f"i.s{n} {{ background: var(--c{n}); }}\n"
    for n in range(5)
)


def page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """A whole HTML document. `sections` are (heading, HTML) pairs; a heading may be empty."""
    body = "\n".join(
        (f"<h2>{escape(heading)}</h2>\n" if heading else "") + content for heading, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )
