"""The report of a run: one self-contained report.html, from the files that the run leaves in its folder.

    run.json, metrics.jsonl, summary.json, evaluation.json, samples/ ─→ sections of HTML ─→ report.html

Only run.json and metrics.jsonl are there from the start; a report of a run that goes on has what there is.
"""

import base64
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from trainer.charts import chart_svg
from trainer.report_page import page

Row = Mapping[str, Any]

CHARTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("Loss", "g", {"loss": "loss"}),
    ("Excess of the loss over its floor", "g", {"loss_excess": "excess"}),
    ("Retrieval of held-out drawings", "%", {
        "recall_at_10": "R@10",
        "recall_at_10_backgrounds": "R@10, random backgrounds",
    }),
    ("Nearest neighbours", "%", {
        "knn_subcategory": "subcategory",
        "knn_subcategory_backgrounds": "subcategory, random backgrounds",
    }),
    ("Images trained a second", "g", {"images_per_second": "trained"}),
    ("Images generated a second", "g", {"generated_per_second": "generated"}),
    ("Fresh and waiting", "%", {"fresh_fraction": "fresh share of a batch", "waiting_share": "time waited"}),
    ("Learning rate", "g", {"lr": "learning rate"}),
    ("Rank of the features", "g", {"rankme": "RankMe"}),
    ("Alignment and uniformity", "g", {"alignment": "alignment", "uniformity": "uniformity"}),
    ("Mean cosine similarity", "g", {
        "positive_similarity": "of one caption's images",
        "negative_similarity": "of different captions' images",
    }),
)  # fmt: skip
"""Title, y format, and label by key of metrics.jsonl; labels of one chart share its axis, hence its unit."""

NUMBERS: tuple[tuple[str, str, str], ...] = (
    ("recall_at_10", "R@10, trained encoder", ".1%"),
    ("recall_at_10_untrained", "R@10, untrained encoder", ".1%"),
    ("images_generated", "images generated", ",.0f"),
    ("images_trained", "images trained", ",.0f"),
    ("mean_uses", "mean uses of an image", ".2f"),
    ("fresh_share", "fresh share of images trained", ".1%"),
    ("wall_seconds", "seconds", ",.0f"),
)
EVALUATION_COLUMNS: tuple[tuple[str, str], ...] = (
    ("recall_at_10", "R@10"),
    ("recall_at_10_backgrounds", "R@10, random backgrounds"),
    ("knn_subcategory", "kNN subcategory"),
    ("knn_subcategory_backgrounds", "kNN subcategory, random backgrounds"),
)


_SHARING = {
    "arrival": "Which groups share a batch depends on when they arrive.",
    "ticket": "Which groups share a batch depends on the step alone, so the losses repeat as well.",
}
"""What stream.order means for repeating a run."""


def write_report(run_folder: Path) -> Path:
    """Writes `run_folder`/report.html by rename and returns its path. Raises OSError if it can't."""
    resolved = _json(run_folder / "run.json") or {}
    resolved_text = json.dumps(resolved, indent=2, ensure_ascii=False)
    rows = _rows(run_folder / "metrics.jsonl")
    summary = _json(run_folder / "summary.json")
    evaluation = _json(run_folder / "evaluation.json") or {}
    name = str(resolved.get("run", {}).get("name", run_folder.name))
    html = page(
        f"streamrep: {name}",
        [
            ("", _what_ran(resolved, rows, summary is not None)),
            ("", _numbers(summary or _numbers_so_far(rows, evaluation))),
            ("Evaluation", _evaluation_table(evaluation)),
            ("Curves", _curves(rows)),
            ("Groups that were trained on", _samples(run_folder / "samples")),
            ("Resume and reproduce", _commands(run_folder, resolved.get("stream", {}).get("order"))),
            ("Run file, every value resolved", f"<pre>{escape(resolved_text)}</pre>"),
        ],
    )
    path = run_folder / "report.html"
    partial = run_folder / ".report.html.partial"
    partial.write_text(html, "utf-8")
    os.replace(partial, path)
    return path


def _what_ran(resolved: Row, rows: Sequence[Row], finished: bool) -> str:
    step = rows[-1].get("step", 0) if rows else 0
    run, generation, stream = (resolved.get(section, {}) for section in ("run", "generation", "stream"))
    facts = [
        f"{'finished' if finished else 'under way'} at step {step} of {run.get('max_steps', '?')}",
        f"mode {run.get('mode', '?')}",
        f"captions {resolved.get('captions', {}).get('source', '?')}",
        f"{generation.get('views', '?')} views a group at {generation.get('size', '?')} px, "
        f"{generation.get('steps', '?')} denoising steps, guidance {generation.get('guidance', '?')}",
        f"batches of {resolved.get('train', {}).get('batch_groups', '?')} groups",
        f"at most {stream.get('max_reuse', '?')} uses of a group",
    ]
    return f'<p class="facts">{escape(" · ".join(facts))}</p>'


def _numbers_so_far(rows: Sequence[Row], evaluation: Mapping[str, Row]) -> Row:
    """The numbers of a run without a summary yet, from its last rows."""
    last: dict[str, Any] = {}
    for row in rows:
        last.update(row)
    return {
        "recall_at_10": last.get("recall_at_10"),
        "recall_at_10_untrained": evaluation.get("untrained", {}).get("recall_at_10"),
        "images_generated": last.get("images_received"),
        "images_trained": last.get("images_trained"),
        "mean_uses": last.get("mean_uses"),
    }


def _numbers(values: Row) -> str:
    tiles = [
        f"<div><b>{escape(format(values[key], form))}</b><span>{escape(label)}</span></div>"
        for key, label, form in NUMBERS
        if values.get(key) is not None
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _curves(rows: Sequence[Row]) -> str:
    figures = []
    for title, y_format, labels in CHARTS:
        series = {
            label: [(float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]
            for key, label in labels.items()
        }
        if any(series.values()):
            chart = chart_svg(series, y_format=y_format)
            figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else "<p>No metrics yet.</p>"


def _evaluation_table(evaluation: Mapping[str, Row]) -> str:
    if not evaluation:
        return "<p>Not evaluated yet.</p>"
    head = "".join(f"<th>{escape(label)}</th>" for _, label in EVALUATION_COLUMNS)
    lines = []
    for encoder, row in evaluation.items():
        values = (row.get(key) for key, _ in EVALUATION_COLUMNS)
        cells = "".join(f"<td>{'' if value is None else f'{value:.1%}'}</td>" for value in values)
        lines.append(f"<tr><th>{escape(encoder)}</th>{cells}</tr>")
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'


def _samples(folder: Path) -> str:
    index = _json(folder / "index.json") or []
    figures = []
    for sample in index:
        strip = folder / f"{int(sample['group_id'])}.png"
        if not strip.exists():
            continue
        data = base64.b64encode(strip.read_bytes()).decode("ascii")
        uses, caption = sample.get("uses"), escape(str(sample["caption"]))
        told = [f"group {int(sample['group_id'])}"]
        told += [f"step {sample['step']}"] if sample.get("step") is not None else []
        told += [f"{uses} use" + ("" if uses == 1 else "s")] if uses is not None else []
        heading = f"{caption} <small>{escape(', '.join(told))}</small>"
        figures.append(
            f'<figure class="strip"><figcaption>{heading}</figcaption>'
            f'<img alt="{caption}" src="data:image/png;base64,{data}"></figure>'
        )
    return f'<div class="strips">{"".join(figures)}</div>' if figures else "<p>No samples kept yet.</p>"


def _commands(run_folder: Path, order: str | None) -> str:
    quoted = shlex.quote(str(run_folder / "run.json"))
    lines = [
        "# goes on from the last checkpoint",
        f"streamrep up {quoted}",
        "# the same settings from the beginning",
        f"streamrep up {quoted} --run.name {shlex.quote(run_folder.name + '-again')}",
    ]
    text = "\n".join(lines)
    return (
        f"<pre>{escape(text)}</pre>"
        "<p>A group's images depend on its id, the run's seed, the generation settings and the weights. "
        f"{_SHARING.get(order or 'arrival', '')}</p>"
    )


def _rows(path: Path) -> list[Row]:
    """The rows of metrics.jsonl, without the last line of a run under way, which may be half written."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _json(path: Path) -> Any:
    """A document, or None where the run has not written it yet."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None
