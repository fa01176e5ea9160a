"""Columns agree with the evaluator: their own ways of holding numbers, several values, parts of the rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bson import Decimal128, Int64

from annserve.catalog.columns import Columns
from annserve.catalog.evaluate import matches, metadata_of
from annserve.domain.filter import And, Equals, Exists, Field, FieldType, In, Leaf, Not, Or, Range

NUMBER = Field(name="n", type=FieldType.NUMBER, many=True, path="a")
TEXT = Field(name="s", type=FieldType.STRING, path="a")
FIELDS = (NUMBER, TEXT)
HELD: list[object] = [
    1, 1.5, -0.0, Int64(2**53 + 1), Int64(2**63 - 1), -(2**63), 2**70, 10**400, Decimal128("0.1"), Decimal128("1E+999"),
    math.nan, math.inf, "a", "b", "\U0001f600", "\uffff", None, True, [], [1, Int64(2**53 + 1), "a"], [[1]], [5, 0], {},
]  # fmt: skip
DOCUMENTS = [{}, *({"a": value} for value in HELD)]
BOUNDS = [0.0, 0.1, 1.0, 2.0**53, 2.0**53 + 2, 2.0**63, -(2.0**63), 1e300]
LEAVES: list[Leaf] = [
    *(Equals(NUMBER, bound) for bound in BOUNDS),
    *(Range(NUMBER, minimum=bound, minimum_excluded=excluded) for bound in BOUNDS for excluded in (True, False)),
    *(Range(NUMBER, maximum=bound, maximum_excluded=excluded) for bound in BOUNDS for excluded in (True, False)),
    *(Range(NUMBER, minimum=low, maximum=high) for low in BOUNDS for high in BOUNDS),
    In(NUMBER, tuple(BOUNDS)),
    Equals(TEXT, "a"),
    Equals(TEXT, "unknown"),
    In(TEXT, ("a", "\uffff", "unknown")),
    Range(TEXT, minimum="\uffff", minimum_excluded=True),
    Range(TEXT, maximum="b", maximum_excluded=True),
    Exists(TEXT),
]


@pytest.fixture(scope="module")
def columns() -> Columns:
    return Columns.of(FIELDS, DOCUMENTS)


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaf_passes_the_documents_that_the_evaluator_passes(columns: Columns, leaf: Leaf) -> None:
    expected = [row for row, document in enumerate(DOCUMENTS) if matches(leaf, document)]
    assert columns.matching_rows(leaf).tolist() == expected


def test_some_rows_are_judged_by_themselves_in_any_order_and_repeated(columns: Columns) -> None:
    filter_ = Or((And((LEAVES[20], Not(LEAVES[3]))), LEAVES[-5]))
    rows = np.random.default_rng(3).integers(0, len(DOCUMENTS), 200)

    assert columns.mask_among(rows, filter_).tolist() == [matches(filter_, DOCUMENTS[row]) for row in rows]
    assert columns.mask_among(rows[:0], filter_).tolist() == []


def test_metadata_are_those_of_the_evaluator(columns: Columns) -> None:
    rows = np.arange(len(DOCUMENTS))[::-1]

    assert list(columns.metadata(rows, FIELDS)) == [metadata_of(FIELDS, DOCUMENTS[row]) for row in rows]


def test_no_documents_are_no_problem() -> None:
    empty = Columns.of(FIELDS, [])

    assert all(empty.matching_rows(leaf).tolist() == [] for leaf in LEAVES)
    assert empty.mask(Not(LEAVES[0])).tolist() == []
