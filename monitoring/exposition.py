"""Prometheus' text format 0.0.4, as https://prometheus.io/docs/instrumenting/exposition_formats/ has it.

A family is one metric: its name, type, help and samples. Names begin with `streamrep_`, units are base units
(seconds, bytes, ratios of 1) at the end of the name, and a counter, which only grows until its process ends,
ends in `_total`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from monitoring.histogram import HistogramCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NAME = re.compile(r"streamrep_[a-z0-9_]*[a-z0-9]")

Labels = Mapping[str, str]
Values = float | Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: `suffix` is what it adds to the family's name."""

    value: float
    labels: Labels
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its samples; without samples it is announced and has no value yet."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.endswith("_total") != (self.kind == "counter"):
            raise ValueError(f"expected streamrep_..., with _total on counters alone; got {self.name}")


def counter(name: str, help_text: str, values: Values, label: str = "") -> Family:
    """`values`: one number, or a number for each value of `label`; None is not known yet."""
    return Family(name, "counter", help_text, _samples(values, label))


def gauge(name: str, help_text: str, values: Values, label: str = "") -> Family:
    """As `counter`, for what may also fall."""
    return Family(name, "gauge", help_text, _samples(values, label))


def info(name: str, help_text: str, labels: Labels) -> Family:
    """A gauge that is always 1 and has its news in its labels."""
    return Family(name, "gauge", help_text, (Sample(1, labels),))


def histogram(name: str, help_text: str, counts: HistogramCounts) -> Family:
    """Cumulative buckets with the bounds as `le`, then sum and count."""
    bounds = [*map(_number, counts.bounds), "+Inf"]
    buckets = [
        Sample(count, {"le": bound}, "_bucket")
        for bound, count in zip(bounds, counts.cumulative, strict=True)
    ]
    total = (Sample(counts.sum, {}, "_sum"), Sample(counts.cumulative[-1], {}, "_count"))
    return Family(name, "histogram", help_text, (*buckets, *total))


def render(families: Iterable[Family]) -> str:
    """The page, a line for each sample below the two that announce its family."""
    lines = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines += [f"{family.name}{s.suffix}{_braces(s.labels)} {_number(s.value)}" for s in family.samples]
    return "".join(line + "\n" for line in lines)


def _samples(values: Values, label: str) -> tuple[Sample, ...]:
    match values:
        case None:
            return ()
        case Mapping():
            return tuple(Sample(value, {label: key}) for key, value in values.items())
        case _:
            return (Sample(values, {}),)


def _braces(labels: Labels) -> str:
    pairs = [f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items()]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
