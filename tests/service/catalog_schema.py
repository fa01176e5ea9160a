"""The declared fields that the tests of the edge filter by, and short ways to write filters."""

from __future__ import annotations

from annserve.domain.catalog import Schema
from annserve.domain.filter import Field, FieldType
from annserve.v1 import filter_pb2 as messages

SCHEMA = Schema(
    [
        Field(name="price", type=FieldType.NUMBER, path="offer.price"),
        Field(name="country", type=FieldType.STRING, path="country"),
        Field(name="stocked", type=FieldType.BOOLEAN, path="stocked"),
        Field(name="released", type=FieldType.TIME, path="released"),
        Field(name="tags", type=FieldType.STRING, many=True, path="tags"),
        Field(name="sizes", type=FieldType.NUMBER, many=True, path="variants.size"),
    ]
)


def string(value: str) -> messages.FieldValue:
    return messages.FieldValue(string_value=value)


def number(value: float) -> messages.FieldValue:
    return messages.FieldValue(number_value=value)


def time(seconds: int, nanos: int = 0) -> messages.FieldValue:
    value = messages.FieldValue()
    value.time_value.seconds, value.time_value.nanos = seconds, nanos
    return value


def equals(field: str, value: messages.FieldValue) -> messages.Filter:
    return messages.Filter(condition=messages.FieldCondition(field=field, equals=value))


def contains(field: str, value: messages.FieldValue) -> messages.Filter:
    return messages.Filter(condition=messages.FieldCondition(field=field, contains=value))


def one_of(field: str, *values: messages.FieldValue) -> messages.Filter:
    return messages.Filter(condition=messages.FieldCondition(field=field, one_of=messages.FieldValues(values=values)))


def in_range(field: str, **bounds: messages.FieldValue) -> messages.Filter:
    return messages.Filter(condition=messages.FieldCondition(field=field, range=messages.FieldRange(**bounds)))


def exists(field: str, there: bool = True) -> messages.Filter:
    return messages.Filter(condition=messages.FieldCondition(field=field, exists=there))


def all_of(*filters: messages.Filter) -> messages.Filter:
    return messages.Filter(all_of=messages.FilterList(filters=filters))


def any_of(*filters: messages.Filter) -> messages.Filter:
    return messages.Filter(any_of=messages.FilterList(filters=filters))


def none_of(*filters: messages.Filter) -> messages.Filter:
    return messages.Filter(none_of=messages.FilterList(filters=filters))


def nested(depth: int) -> messages.Filter:
    """Return a filter that is ``depth`` deep."""
    filter_ = exists("price")
    for _ in range(depth - 1):
        filter_ = none_of(filter_)
    return filter_
