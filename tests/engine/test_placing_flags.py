"""Flags of rows say what the bitmap does at that moment, however often it was asked and has changed."""

from __future__ import annotations

import numpy as np
from engine_catalog import PRICE
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from annserve.domain.filter import Range
from annserve.engine.placing.flags import FlagReader

LEAF = Range(PRICE, maximum=49.0)
ROWS = st.lists(st.integers(0, 300), max_size=20)


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 300), ROWS), max_size=12))
def test_flags_are_those_of_the_bitmap_as_it_is_now(steps: list[tuple[bool, int, list[int]]]) -> None:
    reader, passing, version = FlagReader(), BitMap([3, 200]), 0
    for changes, row, rows in steps:
        if changes:
            (passing.discard if row in passing else passing.add)(row)
            version += 1
        asked = np.array(rows, np.int64)
        for _ in range(3):
            assert reader.of(LEAF, asked, passing, version).tolist() == [one in passing for one in rows]
