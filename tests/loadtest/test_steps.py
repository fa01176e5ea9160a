from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import highest_rate


@given(capacity=st.floats(3.2, 50_000.0), precision=st.floats(0.02, 0.5))
def test_the_rate_found_is_borne_and_a_little_more_is_not(capacity: float, precision: float) -> None:
    found = highest_rate(lambda rate: rate <= capacity, first=200.0, precision=precision)

    assert found is not None
    assert found <= capacity < found * (1 + precision)


def test_one_denial_that_is_not_repeated_changes_nothing() -> None:
    denied: set[float] = set()

    def bears(rate: float) -> bool:
        is_first = rate not in denied
        denied.add(rate)
        return rate <= 700 and not is_first

    found = highest_rate(bears, first=200.0)

    assert found == pytest.approx(700, rel=0.1)


def test_a_server_that_bears_nothing_has_no_rate() -> None:
    assert highest_rate(lambda _rate: False, first=200.0) is None


def test_the_search_ends_where_it_is_told_to() -> None:
    tried: list[float] = []

    def bears(rate: float) -> bool:
        tried.append(rate)
        return True

    highest_rate(bears, first=200.0, rate_max=1_000.0)

    assert max(tried) <= 1_600.0
