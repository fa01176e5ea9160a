from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annserve.catalog.mongo_compile import compile_filter
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.filter import And, Equals, Exists, Field, FieldType, Filter, In, Not, Or, Range, Scalar

OPERATORS = {"$and", "$or", "$nor", "$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$exists"}

PRICE = Field(name="price", type=FieldType.NUMBER, path="price")
NAME = Field(name="name", type=FieldType.STRING, path="name")
NEW = Field(name="new", type=FieldType.BOOLEAN, path="is.new")
AT = Field(name="at", type=FieldType.TIME, path="at")


@pytest.mark.parametrize(
    ("filter_", "compiled"),
    [
        (Equals(PRICE, 5.0), {"price": {"$eq": 5.0}}),
        (Equals(NEW, False), {"is.new": {"$eq": False}}),
        (Equals(AT, -1), {"at": {"$eq": datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)}}),
        (In(NAME, ("$a", "b")), {"name": {"$in": ["$a", "b"]}}),
        (Range(PRICE, 3.0, 10.0, False, True), {"price": {"$gte": 3.0, "$lt": 10.0}}),
        (Range(NAME, "a", None, True), {"name": {"$gt": "a"}}),
        (Exists(NAME), {"name": {"$exists": True}}),
        (And((Exists(NAME), Exists(AT))), {"$and": [{"name": {"$exists": True}}, {"at": {"$exists": True}}]}),
        (Or((Exists(NAME),)), {"$or": [{"name": {"$exists": True}}]}),
        (Not(Exists(NAME)), {"$nor": [{"name": {"$exists": True}}]}),
    ],
)
def test_filter_becomes_the_operator_of_its_kind(filter_: Filter, compiled: dict[str, object]) -> None:
    assert compile_filter(filter_) == compiled


def nested(depth: int) -> Filter:
    filter_: Filter = Exists(NAME)
    for _ in range(depth):
        filter_ = Not(filter_)
    return filter_


@pytest.mark.parametrize(
    "filter_",
    [
        Equals(PRICE, math.nan),
        Equals(PRICE, math.inf),
        Equals(PRICE, True),
        Equals(PRICE, "5"),
        Equals(PRICE, 2**53 + 1),
        Equals(NAME, 5.0),
        Equals(NAME, "\ud800"),
        Equals(NEW, 1),
        Equals(AT, 1.5),
        Equals(AT, True),
        Equals(AT, 2**62),
        Range(NEW, False),
        Range(PRICE),
        In(PRICE, ()),
        In(PRICE, (1.0, "a")),
        And(()),
        Or(()),
        nested(40),
        nested(5_000),
    ],
)
def test_value_or_shape_that_does_not_conform_is_refused(filter_: Filter) -> None:
    with pytest.raises(InvalidArgumentError):
        compile_filter(filter_)


class Disguised(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [{"$gt": ""}, ["a"], None, b"a", Disguised("a")])
def test_value_that_is_no_scalar_is_refused_though_no_type_lets_it_in(value: Scalar) -> None:
    with pytest.raises(InvalidArgumentError):
        compile_filter(Equals(NAME, value))


@pytest.mark.parametrize(
    "path",
    ["", ".", "a.", ".a", "a.b.c", "$where", "a.$b", "$expr", "0", "a.0", "12.b", "a\x00", "a\n.0", "a..b", "\ud800"],
)
def test_path_that_means_more_than_one_name_or_two_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgumentError):
        compile_filter(Exists(Field(name="x", type=FieldType.STRING, path=path)))


SCALARS: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.STRING: st.text(),
    FieldType.NUMBER: st.floats(),
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIME: st.integers(-(2**63), 2**63),
}


@st.composite
def leaves(draw: st.DrawFn) -> Filter:
    type_ = draw(st.sampled_from(FieldType))
    words = ["a", "$where", "$expr", "b.0", "0", "a.b", "$", "a.$ne", "\x00", ""]
    field = Field(name="f", type=type_, path=draw(st.sampled_from(words) | st.text(max_size=5)))
    # Now and then a value of another type.
    value = SCALARS[draw(st.sampled_from([type_, type_, draw(st.sampled_from(FieldType))]))]
    match draw(st.integers(0, 3)):
        case 0:
            return Equals(field, draw(value))
        case 1:
            return In(field, tuple(draw(st.lists(value, max_size=3))))
        case 2:
            return Range(field, draw(st.none() | value), draw(st.none() | value), draw(st.booleans()))
        case _:
            return Exists(field)


FILTERS = st.recursive(
    leaves(),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(And, st.lists(inner, max_size=3).map(tuple))
        | st.builds(Or, st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=8,
)


def keys_and_values(compiled: object) -> Iterator[tuple[str, object]]:
    if isinstance(compiled, dict):
        for key, value in compiled.items():
            yield key, value
            yield from keys_and_values(value)
    elif isinstance(compiled, list):
        for part in compiled:
            yield from keys_and_values(part)


@given(filter_=FILTERS)
def test_whatever_comes_in_is_refused_or_compiled_to_the_allowed_operators_around_scalars(filter_: Filter) -> None:
    try:
        compiled = compile_filter(filter_)
    except InvalidArgumentError:
        return
    for key, value in keys_and_values(compiled):
        if key.startswith("$"):
            assert key in OPERATORS
            of_many = value if isinstance(value, list) else [value]
            kinds = (dict,) if key in {"$and", "$or", "$nor"} else (str, float, bool, datetime)
            assert all(isinstance(each, kinds) for each in of_many)
        else:
            assert 1 <= len(key.split(".")) <= 2
            assert not any(name.startswith("$") or name.isdigit() or not name for name in key.split("."))
