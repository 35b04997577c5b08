"""Means over seeds, with Student's interval."""

import argparse
import math
import statistics
from collections.abc import Sequence

# Student's t at 97.5%, by degrees of freedom; beyond them the normal quantile is within 6%.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 14: 2.145}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95% interval (Student's t); not a number of a single value."""
    if len(values) < 2:
        return values[0], math.nan
    quantile = _T.get(len(values) - 1, 1.96 if len(values) > 15 else 2.262)
    return statistics.mean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def seed_count(text: str) -> int:
    """An option's value. Raises argparse's error for less than two seeds, which have no interval."""
    if int(text) < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2, for intervals, got {text}")
    return int(text)
