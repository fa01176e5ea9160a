"""A condition that becomes a filter passes exactly the items for which CEL says that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placement_texts import FIELDS, VARIABLES, expression

from annserve.catalog.evaluate import matches, metadata_of
from annserve.domain.filter import canonical
from annserve.placements.expression_filter import filter_of
from annserve.placements.expression_parser import parse_time
from annserve.placements.expression_tree import milliseconds

NUMBERS = st.sampled_from(["0", "1", "-1", "2.5", "1e300", "-0.0", "5e-324"])
STRINGS = st.sampled_from(["", "a", "b", "A", "é", "z\U0001f600", "\uffff", "a'b", 'a"b', "\\"])
TIMES = st.sampled_from(
    ["1970-01-01", "2024-05-01T12:00:00.001Z", "0001-01-01", "9999-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"]
)
ORDER = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def constant(type_: str) -> st.SearchStrategy[str]:
    match type_:
        case "number":
            return NUMBERS
        case "string":
            return STRINGS.map(quoted)
        case _:
            return TIMES.map(lambda time: f'timestamp("{time}")')


@st.composite
def field_tests(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(FIELDS)))
    field = FIELDS[name]
    if draw(st.integers(0, 5)) == 0:
        return f"has(item.{name})"
    if field.type.value == "boolean":
        return draw(
            st.sampled_from([f"item.{name}", f"item.{name} == true", f"item.{name} != true", f"false == item.{name}"])
        )
    values = constant(field.type.value)
    if field.many:
        return f"{draw(values)} in item.{name}"
    if draw(st.booleans()):
        return f"item.{name} in [{', '.join(draw(st.lists(values, min_size=1, max_size=3)))}]"
    sides = [f"item.{name}", draw(values)]
    if draw(st.booleans()):
        sides.reverse()
    return f"{sides[0]} {draw(ORDER)} {sides[1]}"


CONDITIONS = st.recursive(
    field_tests(),
    lambda inner: st.one_of(
        inner.map("!({})".format),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " && ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + " || ".join(parts) + ")"),
    ),
    max_leaves=5,
)


def value_of(name: str) -> st.SearchStrategy[Any]:
    field = FIELDS[name]
    values: Mapping[str, st.SearchStrategy[Any]] = {
        "number": NUMBERS.map(float),
        "string": STRINGS,
        "boolean": st.booleans(),
        "time": TIMES.map(lambda text: parse_time(text, 0)),
    }
    one = values[field.type.value]
    return st.lists(one, max_size=3) if field.many else one


DOCUMENTS = st.fixed_dictionaries({}, optional={name: value_of(name) for name in FIELDS})


@settings(max_examples=400, deadline=None)
@given(condition=CONDITIONS, document=DOCUMENTS)
def test_filter_passes_exactly_what_the_condition_holds_for(condition: str, document: Mapping[str, Any]) -> None:
    compiled = expression(condition)
    filter_ = filter_of(compiled.node, VARIABLES)
    assert filter_ is not None
    assert canonical(filter_) == filter_

    known = {f"item.{name}": values for name, values in metadata_of(list(FIELDS.values()), document).items()}
    assert matches(filter_, document) is (compiled.evaluate(known) is True)


@pytest.mark.parametrize("text", ["item.price != 5", "!(item.price == 5)", "item.price == 5 || item.price != 5"])
def test_condition_on_a_missing_field_does_not_hold_and_neither_does_its_opposite(text: str) -> None:
    filter_ = filter_of(expression(text).node, VARIABLES)

    assert filter_ is not None
    assert not matches(filter_, {})
    assert not matches(filter_, {"price": None})
    assert matches(filter_, {"price": 4})


@pytest.mark.parametrize(
    "text",
    [
        "item.price < item.stock",
        "item.price * 2 < 5",
        "score > 1",
        "item.price < 5 && score > 1",
        "item.price < 5 && request.hour > 3",
        "item.status.startsWith('a')",
        "size(item.tags) > 1",
        "item.on_sale ? true : false",
        "item.price in [1, item.stock]",
        "item.on_sale < true",
    ],
)
def test_what_is_no_test_of_single_fields_is_no_filter(text: str) -> None:
    assert filter_of(expression(text).node, VARIABLES) is None


def test_times_are_whole_milliseconds() -> None:
    assert milliseconds(parse_time("1969-12-31T23:59:59.999Z", 0)) == -1
