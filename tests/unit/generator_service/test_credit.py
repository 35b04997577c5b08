"""Credit: two static batches over all ranks, never more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator_service.credit import credit_shares


@given(st.integers(1, 20), st.lists(st.integers(0, 100), min_size=1, max_size=50))
def test_shares_are_all_there_is_and_even(groups: int, wanted: list[int]) -> None:
    """The sum is two static batches and no share differs from another by more than one."""
    shares = credit_shares(groups, wanted)
    assert sum(shares) == 2 * groups
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    ("groups", "wanted", "shares"),
    [(8, [5], [16]), (3, [0, 9, 0, 0], [2, 2, 1, 1]), (1, [0, 7, 3], [0, 1, 1]), (1, [4, 4, 4], [1, 1, 0])],
)
def test_worked_examples(groups: int, wanted: list[int], shares: list[int]) -> None:
    """The rest goes to the first ranks; where ranks outnumber groups, to those that want most."""
    assert credit_shares(groups, wanted) == shares
