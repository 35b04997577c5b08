"""What is written is Prometheus' text format, as a reader made from its specification understands it."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from monitoring.exposition import counter, gauge, histogram, info, render
from monitoring.histogram import Histogram

Parse = Callable[[str], dict[str, Any]]


def test_values_and_labels_come_back(parse_exposition: Parse) -> None:
    """Integers, fractions, infinities, no number at all, and one sample a label value."""
    families = parse_exposition(
        render(
            [
                counter("streamrep_x_total", "So many.", 2**60),
                gauge("streamrep_y_seconds", "A\\n second\nline.", 1e-7),
                gauge("streamrep_z", "By cause.", {"a": math.inf, "b": -math.inf, "c": 0.1 + 0.2}, "cause"),
                gauge("streamrep_nan", "None.", math.nan),
            ]
        )
    )
    assert list(families) == ["streamrep_x_total", "streamrep_y_seconds", "streamrep_z", "streamrep_nan"]
    assert families["streamrep_x_total"].kind == "counter"
    assert families["streamrep_x_total"].samples == {("streamrep_x_total", frozenset()): 2**60}
    assert families["streamrep_y_seconds"].help == "A\\n second\nline."
    assert families["streamrep_y_seconds"].samples == {("streamrep_y_seconds", frozenset()): 1e-7}
    assert families["streamrep_z"].samples == {
        ("streamrep_z", frozenset({("cause", cause)})): value
        for cause, value in (("a", math.inf), ("b", -math.inf), ("c", 0.1 + 0.2))
    }
    assert math.isnan(*families["streamrep_nan"].samples.values())


def test_label_values_may_hold_anything(parse_exposition: Parse) -> None:
    """Quotes, backslashes, line feeds, braces, commas, and a name that tries to end its line."""
    value = 'a "b" \\n c\n},x="1"} 5 ä'
    families = parse_exposition(render([info("streamrep_info", "News.", {"run": value})]))
    assert families["streamrep_info"].samples == {("streamrep_info", frozenset({("run", value)})): 1}


def test_a_value_not_known_yet_is_announced_without_a_line(parse_exposition: Parse) -> None:
    """So that nobody takes it for zero."""
    families = parse_exposition(render([gauge("streamrep_loss", "Loss.", None)]))
    assert families["streamrep_loss"].kind == "gauge"
    assert families["streamrep_loss"].samples == {}


def test_histograms_are_cumulative_and_bounds_belong_to_their_bucket(parse_exposition: Parse) -> None:
    """Compared with a plain loop over the observations."""
    filled = Histogram((0.1, 1.0, 10.0))
    observed = [0.05, 0.1, 0.2, 1.0, 5.0, 10.5, 400.0]
    for value in observed:
        filled.observe(value)
    parsed = parse_exposition(render([histogram("streamrep_b_seconds", "Time.", filled.counts())]))
    samples = parsed["streamrep_b_seconds"].samples
    for bound, text in ((0.1, "0.1"), (1.0, "1.0"), (10.0, "10.0"), (math.inf, "+Inf")):
        bucket = samples["streamrep_b_seconds_bucket", frozenset({("le", text)})]
        assert bucket == sum(value <= bound for value in observed)
    assert samples["streamrep_b_seconds_count", frozenset()] == len(observed)
    assert samples["streamrep_b_seconds_sum", frozenset()] == pytest.approx(sum(observed))


@pytest.mark.parametrize("name", ["steps_total", "streamrep_steps", "streamrep_Steps_total", "streamrep__"])
def test_names_off_the_convention_are_refused(name: str) -> None:
    """The prefix, lower case, and _total on counters."""
    with pytest.raises(ValueError, match="streamrep_"):
        counter(name, "Help.", 1)


def test_total_is_for_counters_alone() -> None:
    """A gauge may not end in it."""
    with pytest.raises(ValueError, match="_total on counters alone"):
        gauge("streamrep_x_total", "Help.", 1)


@pytest.mark.parametrize(
    "page",
    [
        "a 1",
        'a 1\nb 1\na{x="2"} 1\n',
        "a 1\na 1\n",
        "# TYPE a gauge\n# TYPE a gauge\na 1\n",
        "# HELP a x\n# HELP a x\n",
        "a 1\n# TYPE a gauge\n",
        "# TYPE a dial\n",
        "a{x=1} 1\n",
        'a{x="1",x="2"} 1\n',
        'a{x="\\t"} 1\n',
        'a{x="1"}1\n',
        "a one\n",
        "a 1 2 3\n",
        "1a 1\n",
        "# HELP a \\t\n",
        '# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n',
        '# TYPE a histogram\na_bucket{le="1"} 1\na_sum 1\na_count 1\n',
        '# TYPE a histogram\na_bucket{le="+Inf"} 1\na_sum 1\na_count 2\n',
        '# TYPE a histogram\na_bucket{le="2"} 1\na_bucket{le="1"} 1\na_bucket{le="+Inf"} 1\n'
        "a_sum 1\na_count 1\n",
    ],
)
def test_the_reader_is_strict(page: str, parse_exposition: Parse) -> None:
    """Otherwise passing it would mean nothing."""
    with pytest.raises(AssertionError):
        parse_exposition(page)
