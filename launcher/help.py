"""The words of `--help` and docs/run-file.md, both read from the config types.

`python -m launcher.help > docs/run-file.md` writes the page again.
"""

import textwrap
from itertools import groupby

from launcher.fields import Field, fields_of, toml_text
from launcher.run_file import DEFAULT_PATH, RunFile

WIDTH = 100
PAGE_HEAD = """\
# Run file

One TOML file describes a run; every process reads the same file and only its own sections. Without a file
the commands use the embedded run, shown at the end. Any key can be set on the command line, where it wins
over the file: `--train.lr 1e-3`, `--generation.guidance '[2.0, 3.0]'`, `--model.encoder.embedding_size 32`.
Between the two come environment variables: `STREAMREP_TRAIN__LR=1e-3`, with two underscores for the dot.
Lists and tables are written as TOML or JSON. An unknown key, a value of another type and a value out of
range are errors that name the key. The run as resolved is saved as `run.json` in the run's folder.

This page is generated: `python -m launcher.help > docs/run-file.md`.
"""


def help_text(sections: tuple[str, ...] | None = None) -> str:
    """Every key of `sections` (all by default) as plain text for a terminal."""
    lines = ["run file keys, each also an option (--train.lr 1e-3):"]
    for section, fields in _by_section(sections):
        lines.append(f"\n[{section}]")
        for field in fields:
            text = f"{field.description}; {field.kind}; default {toml_text(field.default)}"
            lines.append(f"  --{field.path}")
            lines += textwrap.wrap(
                text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_long_words=False
            )
    return "\n".join(lines)


def page() -> str:
    """docs/run-file.md."""
    parts = [PAGE_HEAD]
    for section, fields in _by_section(None):
        rows = [
            "| " + " | ".join(map(_cell, cells)) + " |"
            for field in fields
            for cells in [(f"`{field.name}`", f"`{toml_text(field.default)}`", field.kind, field.description)]
        ]
        parts.append(
            "\n".join(
                [f"\n## [{section}]\n", "| key | default | takes | meaning |", "|---|---|---|---|", *rows]
            )
        )
    parts.append(f"\n## The embedded run\n\n```toml\n{DEFAULT_PATH.read_text('utf-8').rstrip()}\n```")
    return "\n".join(parts) + "\n"


def _by_section(sections: tuple[str, ...] | None) -> list[tuple[str, list[Field]]]:
    groups = groupby(fields_of(RunFile), key=lambda field: field.section)
    return [(name, list(fields)) for name, fields in groups if sections is None or name in sections]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
