"""results.html: what judging an encoder found, as one page with its plots and no other files."""

import os
from html import escape
from pathlib import Path

from trainer.bars import bars_svg
from trainer.charts import chart_svg
from trainer.evaluation.result import Found, Result
from trainer.report_page import page


def write_page(path: Path, found: Found) -> None:
    """Writes it by rename."""
    pictures = ", ".join(f"{count:,} of {split}" for split, count in found.pictures.items())
    facts = f"{found.encoder} · pictures: {pictures} · {found.classes} classes"
    main = {result.name: next(iter(result.scores.values())) for result in found.results}
    intervals = {
        result.name: result.settings["interval"] for result in found.results if "interval" in result.settings
    }
    sections = [
        ("", f'<p class="facts">{escape(facts)}</p>'),
        (
            "First score of each kind",
            f'<div class="charts"><figure>{bars_svg(main, intervals)}</figure></div>',
        ),
        ("All scores", _table(found)),
    ]
    sections += [(result.name, html) for result in found.results if (html := _details(result))]
    text = page(f"streamrep eval: {found.data}", sections)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def _table(found: Found) -> str:
    names = list(dict.fromkeys(name for result in found.results for name in result.scores))
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in names)
    lines = []
    for result in found.results:
        cells = "".join(
            f"<td>{f'{result.scores[name]:.1%}' if name in result.scores else ''}</td>" for name in names
        )
        cells += f"<td>{escape(result.chosen_on or '')}</td>"
        lines.append(f"<tr><th>{escape(result.name)}</th>{cells}</tr>")
    return (
        f'<div class="wide"><table><tr><th></th>{head}<th>chosen on</th></tr>{"".join(lines)}</table></div>'
    )


def _details(result: Result) -> str:
    figures = []
    if result.curves:
        chart = chart_svg(result.curves, x_label=result.curve_of, y_format="%")
        figures.append(f"<figure><figcaption>by {escape(result.curve_of)}</figcaption>{chart}</figure>")
    if result.by_class:
        ranked = sorted(result.by_class.values())
        what = "accuracy" if "accuracy" in result.scores else "average precision"
        points = {what: [(float(rank), share) for rank, share in enumerate(ranked, start=1)]}
        chart = chart_svg(points, x_label="class", y_format="%")
        figures.append(f"<figure><figcaption>classes, the worst first</figcaption>{chart}</figure>")
    if result.by_group:
        figures.append(f"<figure><figcaption>groups</figcaption>{bars_svg(result.by_group)}</figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""
