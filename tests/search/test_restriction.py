from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annserve.domain.errors import InvalidArgumentError
from annserve.search.restriction import Restriction

ROWS = st.lists(st.integers(0, 29), max_size=40)


@given(rows=ROWS)
def test_rows_are_sorted_and_unique_and_the_mask_says_the_same(rows: list[int]) -> None:
    restriction = Restriction(rows, 30)

    assert restriction.rows.tolist() == sorted(set(rows))
    assert np.flatnonzero(restriction.mask).tolist() == sorted(set(rows))
    assert len(restriction) == len(set(rows))


@given(rows=ROWS, others=st.lists(st.integers(0, 29), unique=True))
def test_positions_are_those_of_the_allowed_ones_only(rows: list[int], others: list[int]) -> None:
    restriction = Restriction(rows, 30)

    found = restriction.rows[restriction.positions(np.array(others, np.int64))]

    assert sorted(found.tolist()) == sorted(set(rows) & set(others))


@pytest.mark.parametrize("row", [-1, 30])
def test_rows_outside_the_space_are_refused(row: int) -> None:
    with pytest.raises(InvalidArgumentError, match="0 to 29"):
        Restriction([1, row], 30)
