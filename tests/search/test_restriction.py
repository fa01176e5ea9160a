from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from annserve.domain.errors import InvalidArgumentError
from annserve.search.index import SpaceIndex
from annserve.search.points import Points
from annserve.search.restriction import Restriction

ROWS = st.lists(st.integers(0, 29), max_size=40)


@given(rows=ROWS)
def test_rows_are_sorted_and_unique_and_the_bitmap_says_the_same(rows: list[int]) -> None:
    restriction = Restriction(rows, 30)

    assert restriction.rows.tolist() == sorted(set(rows))
    assert list(restriction.bitmap) == sorted(set(rows))
    assert restriction.count_of(range(30)) == len(set(rows))
    assert len(restriction) == len(set(rows))


@given(rows=ROWS)
def test_ceilings_change_no_score_of_an_allowed_row_and_leave_none_to_others(rows: list[int]) -> None:
    scores = np.resize(np.array([-0.0, 0.0, -np.inf, np.inf, 1.5, -1.5], np.float32), 30)

    found = np.minimum(scores, Restriction(rows, 30).ceilings)

    allowed = np.isin(np.arange(30), rows)
    assert found[allowed].tobytes() == scores[allowed].tobytes()
    assert np.isneginf(found[~allowed]).all()


@given(rows=ROWS, others=st.lists(st.integers(0, 29), unique=True))
def test_positions_are_those_of_the_allowed_ones_only(rows: list[int], others: list[int]) -> None:
    restriction = Restriction(rows, 30)

    found = restriction.rows[restriction.positions(np.array(others, np.int64))]

    assert sorted(found.tolist()) == sorted(set(rows) & set(others))


@pytest.mark.parametrize("row", [-1, 30])
def test_rows_outside_the_space_are_refused(row: int) -> None:
    with pytest.raises(InvalidArgumentError, match="0 to 29"):
        Restriction([1, row], 30)


def test_a_bitmap_is_taken_as_it_is_and_checked_as_rows_are() -> None:
    assert Restriction(BitMap([3, 1]), 30).rows.tolist() == [1, 3]
    with pytest.raises(InvalidArgumentError, match="0 to 29"):
        Restriction(BitMap([30]), 30)


def test_a_successor_keeps_what_was_learned_while_few_rows_differ_but_not_the_gathered_points() -> None:
    rng = np.random.default_rng(0)
    points = Points.affinity(rng.standard_normal((1_000, 4), dtype=np.float32), np.zeros(1_000, np.float32))
    index = SpaceIndex(points)
    first = Restriction(range(500), 1_000)
    query = rng.standard_normal(5, dtype=np.float32)
    for _ in range(3):
        index.search(query, 10, restriction=first)

    near = first.succeeded_by(first.bitmap ^ BitMap([499]))
    far = first.succeeded_by(BitMap(range(400)))

    assert len(near.selections) == 1
    assert not far.selections
    expected = index.search(query, 10, restriction=Restriction(range(499), 1_000))
    assert index.search(query, 10, restriction=near).rows.tolist() == expected.rows.tolist()
