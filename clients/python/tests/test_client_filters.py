"""Filters as a caller writes them, and as they go over the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from annserve_client import Filter, Options, Similar, field
from annserve_client._gen import filter_pb2 as messages
from annserve_client.convert import answer_of, message_of

price, country, tags = field("price"), field("country"), field("tags")
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def _sent(filter_: Filter) -> messages.Filter:
    options = message_of(Similar(item_ids=["a"], options=Options(filter=filter_))).options
    return options.filter


def _condition(name: str, **test: Any) -> messages.Filter:
    return messages.Filter(condition=messages.FieldCondition(field=name, **test))


def _number(value: float) -> messages.FieldValue:
    return messages.FieldValue(number_value=value)


def _string(value: str) -> messages.FieldValue:
    return messages.FieldValue(string_value=value)


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (price == 5, _condition("price", equals=_number(5))),
        (price != 5, messages.Filter(none_of=messages.FilterList(filters=[_condition("price", equals=_number(5))]))),
        (price < 5, _condition("price", range=messages.FieldRange(below=_number(5)))),
        (price <= 5, _condition("price", range=messages.FieldRange(maximum=_number(5)))),
        (price > 0, _condition("price", range=messages.FieldRange(above=_number(0)))),
        (price >= 0, _condition("price", range=messages.FieldRange(minimum=_number(0)))),
        (
            price.within(minimum=0, below=5),
            _condition("price", range=messages.FieldRange(minimum=_number(0), below=_number(5))),
        ),
        (country == "", _condition("country", equals=_string(""))),
        (
            country.one_of("a", "b"),
            _condition("country", one_of=messages.FieldValues(values=[_string("a"), _string("b")])),
        ),
        (tags.contains("상품"), _condition("tags", contains=_string("상품"))),
        (tags.exists(), _condition("tags", exists=True)),
        (field("stocked") == False, _condition("stocked", equals=messages.FieldValue(bool_value=False))),  # noqa: E712
    ],
)
def test_condition_goes_over_the_wire_as_it_is_written(filter_: Filter, expected: messages.Filter) -> None:
    assert _sent(filter_) == expected


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9))])
def test_time_is_sent_as_the_moment_it_is(zone: timezone) -> None:
    sent = _sent(field("released") >= NOON.astimezone(zone))

    assert sent.condition.range.minimum.time_value.ToDatetime(tzinfo=UTC) == NOON


@pytest.mark.parametrize("join", ["and", "or"])
def test_long_chains_do_not_nest(join: str) -> None:
    parts = [price > number for number in range(20)]
    chain = parts[0]
    for part in parts[1:]:
        chain = chain & part if join == "and" else chain | part

    sent = _sent(~chain)

    listed = sent.none_of.filters if join == "or" else sent.none_of.filters[0].all_of.filters
    assert [condition.condition.range.above.number_value for condition in listed] == list(range(20))


def test_not_undoes_not() -> None:
    single, several = price > 1, (price > 1) | (price < 0)

    assert ~~single == single
    assert ~~several == several
    assert ~single != single


def test_filter_has_no_truth_value_so_that_no_half_is_lost() -> None:
    with pytest.raises(TypeError, match=r"joined by &, \| and ~"):
        1 < price < 5  # noqa: B015 - what is tested
    with pytest.raises(TypeError):
        bool(price > 1 and price < 5)
    with pytest.raises(TypeError):
        bool(not price == 1)  # noqa: SIM201 - what is tested


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, TypeError),
        (["a"], TypeError),
        (b"a", TypeError),
        ({"$gt": ""}, TypeError),
        (2**53 + 1, ValueError),
        (datetime(2024, 1, 1), ValueError),
    ],
)
def test_value_that_would_be_sent_as_another_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        price == value  # noqa: B015 - what is tested
    with pytest.raises(error):
        country.one_of("a", value)
    with pytest.raises(error):
        price < value  # noqa: B015 - what is tested


@pytest.mark.parametrize("bounds", [{}, {"minimum": 1, "above": 1}, {"maximum": 1, "below": 1, "above": 0}])
def test_range_has_a_bound_and_not_two_of_a_side(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="bound"):
        price.within(**bounds)


def test_single_string_for_a_read_mask_is_refused() -> None:
    with pytest.raises(TypeError, match="single string 'price'"):
        message_of(Similar(item_ids=["a"], options=Options(read_mask="price")))


def test_value_of_a_kind_that_this_client_does_not_know_is_left_out() -> None:
    from annserve_client._gen import recommendation_service_pb2 as service_messages

    response = service_messages.SimilarResponse()
    result = response.recommendations.results.add(item_id="a")
    result.metadata["odd"].values.add()
    result.metadata["tags"].values.add(string_value="x")
    response.serving_info.MergeFromString(b"\x20\x63")  # degradations: 99

    answer = answer_of(response)

    assert answer.results[0].metadata == {"odd": (), "tags": ("x",)}
    assert (answer.results[0].value("tags"), answer.results[0].value("odd")) == ("x", None)
    assert [degradation.value for degradation in answer.degradations] == ["unknown"]
