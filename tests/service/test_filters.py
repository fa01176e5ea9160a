"""What a filter's message stands for, and where and how one that stands for nothing is refused."""

from __future__ import annotations

import math

import pytest
from catalog_schema import (
    SCHEMA,
    all_of,
    any_of,
    contains,
    equals,
    exists,
    in_range,
    nested,
    none_of,
    number,
    one_of,
    string,
    time,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from annserve.domain.catalog import Schema
from annserve.domain.errors import InvalidArgumentError, NoCatalogError
from annserve.domain.filter import And, Equals, Exists, Filter, In, Not, Or, Range, canonical
from annserve.domain.query import Mode, Query
from annserve.service.convert import batch_queries, is_fault_of_caller, similar_query
from annserve.v1 import filter_pb2 as messages
from annserve.v1 import recommendation_pb2 as values
from annserve.v1 import recommendation_service_pb2 as service_messages

PRICE, COUNTRY, STOCKED, RELEASED, TAGS, SIZES = SCHEMA.fields.values()
TRUE = messages.FieldValue(bool_value=True)


def _request(**options: object) -> service_messages.SimilarRequest:
    return service_messages.SimilarRequest(item_ids=["a"], options=values.RecommendOptions(**options))  # type: ignore[arg-type]  # as given by the tests


def _read(message: messages.Filter) -> Filter | None:
    return similar_query(_request(filter=message), SCHEMA).options.filter


def _violations(message: messages.Filter) -> list[tuple[str, str]]:
    with pytest.raises(InvalidArgumentError) as caught:
        _read(message)
    assert is_fault_of_caller(caught.value, Mode.SIMILAR)
    return [
        (violation.field.removeprefix("options.filter"), violation.description) for violation in caught.value.violations
    ]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (equals("price", number(5)), Equals(PRICE, 5.0)),
        (equals("price", number(-0.0)), Equals(PRICE, 0.0)),
        (equals("country", string("")), Equals(COUNTRY, "")),
        (equals("country", string("\x00")), Equals(COUNTRY, "\x00")),
        (equals("stocked", messages.FieldValue(bool_value=False)), Equals(STOCKED, False)),
        (equals("released", time(1, 999_999)), Equals(RELEASED, 1_000)),
        (equals("released", time(-1, 999_999_999)), Equals(RELEASED, -1)),
        (equals("released", time(-62_135_596_800)), Equals(RELEASED, -62_135_596_800_000)),
        (equals("released", time(253_402_300_799, 999_999_999)), Equals(RELEASED, 253_402_300_799_999)),
        (contains("tags", string("x")), Equals(TAGS, "x")),
        (one_of("country", string("b"), string("a"), string("b")), In(COUNTRY, ("a", "b"))),
        (one_of("sizes", number(1)), Equals(SIZES, 1.0)),
        (in_range("price", minimum=number(1)), Range(PRICE, 1.0)),
        (in_range("price", above=number(1), below=number(2)), Range(PRICE, 1.0, 2.0, True, True)),
        (in_range("price", minimum=number(2), maximum=number(1)), Range(PRICE, 2.0, 1.0)),
        (in_range("country", maximum=string("b")), Range(COUNTRY, None, "b")),
        (in_range("released", minimum=time(0)), Range(RELEASED, 0)),
        (in_range("sizes", below=number(0)), Range(SIZES, None, 0.0, False, True)),
        (exists("tags"), Exists(TAGS)),
        (exists("tags", there=False), Not(Exists(TAGS))),
        (none_of(exists("tags")), Not(Exists(TAGS))),
        (none_of(exists("tags"), exists("price")), Not(Or((Exists(PRICE), Exists(TAGS))))),
        (all_of(exists("tags"), all_of(exists("price"))), And((Exists(PRICE), Exists(TAGS)))),
        (any_of(exists("tags"), exists("tags")), Exists(TAGS)),
    ],
)
def test_message_stands_for_its_canonical_filter(message: messages.Filter, expected: Filter) -> None:
    read = _read(message)

    # Equality alone would take 0 for False, and -0.0 for 0.0.
    assert repr(read) == repr(canonical(expected))


@pytest.mark.parametrize(
    ("message", "path", "description"),
    [
        (messages.Filter(), "", "one of condition, all_of, any_of, none_of must be set"),
        (
            messages.Filter(condition=messages.FieldCondition()),
            ".condition.field",
            "'' is not declared; the fields are",
        ),
        (exists("offer.price"), ".condition.field", "'offer.price' is not declared"),
        (exists("$where"), ".condition.field", "'$where' is not declared"),
        (
            messages.Filter(condition=messages.FieldCondition(field="price")),
            ".condition",
            "one of equals, one_of, range, exists, contains must be set",
        ),
        (equals("tags", string("x")), ".condition.equals", "use contains"),
        (contains("country", string("x")), ".condition.contains", "use equals"),
        (equals("price", messages.FieldValue()), ".condition.equals", "must be a number_value, as 'price' is declared"),
        (
            equals("price", string("5")),
            ".condition.equals",
            "must be a number_value, as 'price' is declared, got string",
        ),
        (equals("price", TRUE), ".condition.equals", "got bool_value"),
        (equals("country", number(5)), ".condition.equals", "must be a string_value"),
        (equals("stocked", number(1)), ".condition.equals", "must be a bool_value"),
        (equals("released", number(1)), ".condition.equals", "must be a time_value"),
        (equals("price", number(math.nan)), ".condition.equals", "must be a finite number, got nan"),
        (in_range("price", below=number(math.inf)), ".condition.range.below", "must be a finite number, got inf"),
        (equals("released", time(253_402_300_800)), ".condition.equals", "must be a time from 0001-01-01"),
        (equals("released", time(-62_135_596_801)), ".condition.equals", "must be a time from 0001-01-01"),
        (equals("released", time(0, -1)), ".condition.equals", "must be a time from 0001-01-01"),
        (equals("released", time(0, 1_000_000_000)), ".condition.equals", "must be a time from 0001-01-01"),
        (one_of("country"), ".condition.one_of.values", "must have at least 1 entries"),
        (one_of("country", string("a"), number(1)), ".condition.one_of.values[1]", "must be a string_value"),
        (in_range("price"), ".condition.range", "one of minimum, above, maximum, below must be set"),
        (in_range("price", minimum=string("a")), ".condition.range.minimum", "must be a number_value"),
        (in_range("stocked", minimum=TRUE), ".condition.range", "is not for booleans"),
        (all_of(), ".all_of.filters", "must have at least 1 entries"),
        (none_of(), ".none_of.filters", "must have at least 1 entries"),
        (
            all_of(exists("tags"), any_of(in_range("price", minimum=TRUE))),
            ".all_of.filters[1].any_of.filters[0].condition.range.minimum",
            "must be a number_value",
        ),
    ],
)
def test_what_stands_for_nothing_is_refused_at_its_place(message: messages.Filter, path: str, description: str) -> None:
    ((told_path, told_description),) = _violations(message)

    assert told_path == path
    assert description in told_description


def test_everything_wrong_is_told_at_once() -> None:
    wrong = all_of(exists("nothing"), equals("price", TRUE), none_of(messages.Filter()))

    assert [path for path, _ in _violations(wrong)] == [
        ".all_of.filters[0].condition.field",
        ".all_of.filters[1].condition.equals",
        ".all_of.filters[2].none_of.filters[0]",
    ]


def test_name_that_is_not_declared_is_repeated_in_part() -> None:
    ((_, description),) = _violations(exists("x" * 10_000))

    assert len(description) < 200


@pytest.mark.parametrize("depth", [9, 30, 45])
def test_what_is_nested_too_deep_is_not_followed(depth: int) -> None:
    assert _violations(nested(depth)) == [(".none_of.filters[0]" * 8, "must be nested at most 8 deep")]


def test_fields_to_return_are_declared_ones() -> None:
    mask = FieldMask(paths=["price", "offer.price", "*", ""])

    with pytest.raises(InvalidArgumentError) as caught:
        similar_query(_request(read_mask=mask), SCHEMA)

    assert is_fault_of_caller(caught.value, Mode.SIMILAR)
    assert [violation.field for violation in caught.value.violations] == [
        f"options.read_mask.paths[{position}]" for position in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("seconds", "nanos"), [(-1, 0), (0, -1), (86_400, 1), (315_576_000_000, 0), (-(2**63), 0), (2**63 - 1, 2**31 - 1)]
)
def test_staleness_outside_a_day_is_refused(seconds: int, nanos: int) -> None:
    consistency = values.ConsistencyOptions(max_staleness=Duration(seconds=seconds, nanos=nanos))

    with pytest.raises(InvalidArgumentError, match=r"^options\.consistency\.max_staleness: must be at (least|most)"):
        similar_query(_request(consistency=consistency), SCHEMA)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"filter": exists("price")}, "options.filter"),
        ({"filter": messages.Filter()}, "options.filter"),
        ({"read_mask": FieldMask(paths=["price"])}, "options.read_mask"),
        ({"filter": exists("price"), "read_mask": FieldMask(paths=["price"])}, "options.filter"),
    ],
)
def test_without_a_catalogue_there_is_nothing_to_filter_or_read(options: dict[str, object], field: str) -> None:
    with pytest.raises(NoCatalogError) as caught:
        similar_query(_request(**options), None)

    assert caught.value.metadata == {"field": field}
    assert "(--catalog, or ANNSERVE_CATALOG)" in str(caught.value)


def test_without_a_catalogue_what_needs_none_is_answered() -> None:
    asked = _request(read_mask=FieldMask(), consistency=values.ConsistencyOptions(max_staleness=Duration(seconds=1)))

    assert similar_query(asked, None).options.max_staleness_seconds == 1.0


def test_what_is_wrong_in_itself_is_told_before_the_lack_of_a_catalogue() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^options\.page_size"):
        similar_query(_request(page_size=501, filter=exists("price")), None)


def test_catalogue_without_declared_fields_knows_none() -> None:
    with pytest.raises(InvalidArgumentError, match="'price' is not declared; the fields are none"):
        similar_query(_request(filter=exists("price")), Schema())


def test_row_of_a_batch_without_a_catalogue_spoils_no_other() -> None:
    rows = [
        service_messages.BatchRecommendRow(similar=_request(filter=exists("price"))),
        service_messages.BatchRecommendRow(similar=_request()),
    ]

    refused, read = batch_queries(service_messages.BatchRecommendRequest(rows=rows), None)

    assert isinstance(refused, NoCatalogError)
    assert isinstance(read, Query)
