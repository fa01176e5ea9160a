"""The cases of MongoDB's meaning that are easy to get wrong; the differential test compares at large."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from bson import Code, DatetimeMS, DBRef, Decimal128, Int64, Timestamp

from annserve.catalog.evaluate import matches, metadata_of
from annserve.domain.filter import Equals, Exists, Field, FieldType, Filter, Not, Range

NUMBER = Field(name="n", type=FieldType.NUMBER, path="a")
STRING = Field(name="s", type=FieldType.STRING, path="a")
TIME = Field(name="t", type=FieldType.TIME, path="a")
INNER = Field(name="i", type=FieldType.NUMBER, path="a.b")


@pytest.mark.parametrize(
    ("filter_", "held", "passes"),
    [
        (Range(NUMBER, minimum=3.0, maximum=1.0), [0, 5], True),
        (Range(NUMBER, minimum=3.0, maximum=1.0), 2, False),
        (Equals(NUMBER, 1.0), True, False),
        (Equals(NUMBER, 2.0**53), Int64(2**53 + 1), False),
        (Range(NUMBER, minimum=2.0**53, minimum_excluded=True), Int64(2**53 + 1), True),
        (Equals(NUMBER, 0.1), Decimal128("0.1"), False),
        (Equals(NUMBER, 0.0), -0.0, True),
        (Range(NUMBER, maximum=0.0), math.nan, False),
        (Range(NUMBER, maximum=0.0), Decimal128("sNaN"), False),
        (Equals(NUMBER, 1.0), [[1]], False),
        (Equals(STRING, "a"), Code("a"), False),
        (Range(STRING, minimum="\uffff"), "\U0001f600", True),
        (Range(TIME, minimum=0), Timestamp(5, 1), False),
        (Equals(TIME, -1), datetime(1969, 12, 31, 23, 59, 59, 999_900, tzinfo=UTC), True),
        (Range(TIME, minimum=0), DatetimeMS(2**62), True),
        (Equals(INNER, 1.0), [{"b": 1}, 2], True),
        (Equals(INNER, 1.0), [[{"b": 1}]], False),
        (Equals(INNER, 1.0), DBRef("c", "d", b=1), True),
        (Exists(NUMBER), None, True),
        (Exists(INNER), [], False),
        (Not(Equals(NUMBER, 1.0)), None, True),
    ],
)
def test_value_passes_as_mongodb_has_it(filter_: Filter, held: object, passes: bool) -> None:
    assert matches(filter_, {"a": held}) is passes


def test_what_is_missing_passes_only_a_negation() -> None:
    assert not matches(Exists(NUMBER), {})
    assert matches(Not(Exists(NUMBER)), {})


@pytest.mark.parametrize(
    ("type_", "many", "held", "found"),
    [
        (FieldType.NUMBER, False, 3, {"f": (3.0,)}),
        (FieldType.NUMBER, False, [3], {}),
        (FieldType.NUMBER, True, [3, "4", 5.5, math.inf, 10**400], {"f": (3.0, 5.5)}),
        (FieldType.STRING, True, "x", {"f": ("x",)}),
        (FieldType.STRING, False, "", {"f": ("",)}),
        (FieldType.BOOLEAN, False, False, {"f": (False,)}),
        (FieldType.TIME, False, datetime(1970, 1, 1, 0, 0, 1), {"f": (1_000,)}),
        (FieldType.STRING, False, None, {}),
    ],
)
def test_metadata_are_values_of_the_declared_type(
    type_: FieldType, many: bool, held: object, found: dict[str, object]
) -> None:
    assert metadata_of([Field(name="f", type=type_, many=many, path="a")], {"a": held}) == found
