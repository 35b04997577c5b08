"""Batch times and idleness."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from generator_service.pace import RECENT_BATCHES, Pace


@given(st.lists(st.floats(0.01, 100), max_size=200))
def test_p95_is_the_nearest_rank_of_recent_batches(seconds: list[float]) -> None:
    """As numpy computes it, over the last 64 with the warm-up's time before them."""
    pace, now = Pace(1.0), 0.0
    lasted = [1.0]
    for duration in seconds:
        pace.start(now)
        lasted.append(now + duration - now)
        now += duration
        pace.finish(now)
    expected = np.percentile(lasted[-RECENT_BATCHES:], 95, method="inverted_cdf")
    assert pace.p95_seconds == expected


def test_idleness_grows_while_a_batch_is_under_way_only() -> None:
    """And what is left of a batch is guessed from the batches before."""
    pace = Pace(4.0)
    assert (pace.drawing, pace.idle_seconds(9.0), pace.left_seconds(9.0)) == (False, 0.0, 0.0)
    pace.start(10.0)
    assert (pace.drawing, pace.idle_seconds(11.0), pace.left_seconds(11.0)) == (True, 1.0, 3.0)
    assert pace.left_seconds(20.0) == 0.0
    pace.finish(12.0)
    assert (pace.drawing, pace.idle_seconds(15.0)) == (False, 0.0)


def test_of_two_under_way_the_second_counts_from_the_end_of_the_first() -> None:
    """The device draws one after the other; what is left is what is left of both."""
    pace = Pace(4.0)
    pace.start(10.0)
    pace.start(10.5)
    assert (pace.idle_seconds(11.0), pace.left_seconds(11.0)) == (1.0, 7.0)
    pace.finish(16.0)
    assert (pace.drawing, pace.p95_seconds, pace.idle_seconds(17.0)) == (True, 6.0, 1.0)
    pace.finish(18.0)
    assert (pace.drawing, pace.idle_seconds(19.0), pace.left_seconds(19.0)) == (False, 0.0, 0.0)


def test_another_engine_begins_anew_with_the_batch_that_is_under_way() -> None:
    """Its warm-up is all that is known of it, and the time that building it took is nobody's idleness."""
    pace = Pace(4.0)
    pace.start(10.0)
    pace.begin_anew(2.0, 30.0)
    assert (pace.p95_seconds, pace.drawing, pace.idle_seconds(31.0)) == (2.0, True, 1.0)
