"""What tests of every room share: where the repository is, and a strict reader of Prometheus' text format."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LabelSet = frozenset[tuple[str, str]]

SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?[ \t]+(?P<rest>.*)")
LABEL = re.compile(r'[ \t]*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\]|\\["\\n])*)"[ \t]*(,|$)')
VALUE = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?Inf|NaN")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


@dataclass
class ParsedFamily:
    """One metric as a scraper sees it. `samples` by full name and labels."""

    kind: str = "untyped"
    help: str | None = None
    typed: bool = False
    samples: dict[tuple[str, LabelSet], float] = field(default_factory=dict)


ParsedFamilies = dict[str, ParsedFamily]


def parse_strictly(text: str) -> ParsedFamilies:
    """Reads a page by the rules of the format's specification, version 0.0.4; AssertionError where it errs.

    Each family is one uninterrupted block with HELP and TYPE first and once, each line is unique, the last
    line ends with a line feed, and a histogram's buckets rise to +Inf, which equals its count.
    """
    assert text.endswith("\n") or not text, "the last line must end with a line feed"
    families: ParsedFamilies = {}
    closed: set[str] = set()
    current = ""
    for line in text.split("\n"):
        tokens = line.split(None, 3)
        if not tokens or (tokens[0] == "#" and tokens[1:2] not in (["HELP"], ["TYPE"])):
            continue
        name = tokens[2] if tokens[0] == "#" else _family_of(SAMPLE.match(line.strip(" \t")), families)
        if name != current:
            assert name not in closed, f"{name} is not one block: {line}"
            closed.add(current)
            current = name
        family = families.setdefault(name, ParsedFamily())
        if tokens[0] == "#":
            _announce(family, tokens, line)
        else:
            _add_sample(family, line.strip(" \t"))
    for name, family in families.items():
        if family.kind == "histogram":
            _check_histogram(name, family)
    return families


def _family_of(match: "re.Match[str] | None", families: ParsedFamilies) -> str:
    assert match, "not a sample"
    name = match["name"]
    for kind, suffixes in SUFFIXES.items():
        for suffix in suffixes:
            base = name.removesuffix(suffix)
            if name.endswith(suffix) and base in families and families[base].kind == kind:
                return base
    return name


def _announce(family: ParsedFamily, tokens: list[str], line: str) -> None:
    assert not family.samples, f"HELP and TYPE come before the first sample: {line}"
    if tokens[1] == "HELP":
        assert family.help is None, f"a second HELP: {line}"
        family.help = _unescape(tokens[3] if len(tokens) > 3 else "", r"\\[\\n]")
    else:
        assert not family.typed, f"a second TYPE: {line}"
        assert tokens[3:] in (["counter"], ["gauge"], ["histogram"], ["summary"], ["untyped"]), line
        family.kind, family.typed = tokens[3], True


def _add_sample(family: ParsedFamily, line: str) -> None:
    match = SAMPLE.fullmatch(line)
    assert match, f"not a sample: {line}"
    labels: list[tuple[str, str]] = []
    rest = match["labels"] or ""
    while rest:
        label = LABEL.match(rest)
        assert label, f"not a label: {rest!r} in {line}"
        labels.append((label["name"], _unescape(label["value"], r'\\[\\n"]')))
        rest = rest[label.end() :]
    assert len({name for name, _ in labels}) == len(labels), f"a label twice: {line}"
    value, *timestamp = match["rest"].split()
    assert VALUE.fullmatch(value), f"not a number: {line}"
    assert not timestamp or (len(timestamp) == 1 and re.fullmatch(r"-?\d+", timestamp[0])), line
    key = (match["name"], frozenset(labels))
    assert key not in family.samples, f"a line twice: {line}"
    family.samples[key] = float(value.replace("Inf", "inf"))


def _unescape(text: str, escapes: str) -> str:
    assert "\\" not in re.sub(escapes, "", text), f"an unknown escape: {text!r}"
    return re.sub(escapes, lambda found: {"n": "\n"}.get(found[0][1], found[0][1]), text)


def _check_histogram(name: str, family: ParsedFamily) -> None:
    series: dict[LabelSet, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            bounds = [float(text.replace("Inf", "inf")) for label, text in labels if label == "le"]
            assert len(bounds) == 1, f"{name}: a bucket without its bound"
            series.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), []).append(
                (bounds[0], value)
            )
    for labels, buckets in series.items():
        assert buckets == sorted(buckets), f"{name}: bounds rise, and so do counts"
        assert [count for _, count in buckets] == sorted(count for _, count in buckets), name
        assert math.isinf(buckets[-1][0]), f"{name}: no +Inf"
        assert family.samples[f"{name}_count", labels] == buckets[-1][1], f"{name}: _count is the last bucket"
        assert (f"{name}_sum", labels) in family.samples, name


@pytest.fixture(scope="session")
def parse_exposition() -> Callable[[str], ParsedFamilies]:
    """`parse_strictly`, for tests of any folder."""
    return parse_strictly


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout that the tests run from."""
    return Path(__file__).resolve().parents[1]
