"""Filters as MongoDB documents: a few operators around scalar values, and nothing else whatever comes in."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from annserve.domain.errors import InvalidArgumentError
from annserve.domain.filter import And, Equals, Exists, Field, FieldType, Filter, In, Not, Or, Range, Scalar

DEPTH_MAX = 32
"""How deep filters may nest: well above what requests may ask for, well below what MongoDB bears (100)."""

PATH = re.compile(r"(?!\$)(?!\d+(\.|\Z))[^.\x00\ud800-\udfff]+(\.(?!\$)(?!\d+\Z)[^.\x00\ud800-\udfff]+)?")
"""One name or two. A number would mean a place in a list, a ``$`` an operator."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SURROGATE = re.compile("[\ud800-\udfff]")


def compile_filter(filter_: Filter) -> dict[str, Any]:
    """Return what finds the documents that pass ``filter_``.

    It holds only ``$and $or $nor $eq $in $gt $gte $lt $lte $exists``, paths of one or two names, and strings, finite
    floats, booleans and datetimes of UTC in whole milliseconds.

    Raises:
        InvalidArgumentError: a path, a value or the shape of the filter is not of that kind.
    """
    return _compiled(filter_, 1)


def _compiled(filter_: Filter, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise InvalidArgumentError.of("filter", f"must not nest deeper than {DEPTH_MAX}")
    match filter_:
        case And(filters):
            return {"$and": _all_compiled(filters, depth)}
        case Or(filters):
            return {"$or": _all_compiled(filters, depth)}
        case Not(inner):
            return {"$nor": [_compiled(inner, depth + 1)]}
        case Equals(field, value):
            return {_path(field): {"$eq": _value(field, value)}}
        case In(field, values):
            if not values:
                raise InvalidArgumentError.of(field.name, "must be compared with at least one value")
            return {_path(field): {"$in": [_value(field, value) for value in values]}}
        case Range():
            return {_path(filter_.field): _bounds(filter_)}
        case Exists(field):
            return {_path(field): {"$exists": True}}


def _all_compiled(filters: tuple[Filter, ...], depth: int) -> list[dict[str, Any]]:
    if not filters:
        raise InvalidArgumentError.of("filter", "must join at least one filter")
    return [_compiled(inner, depth + 1) for inner in filters]


def _bounds(leaf: Range) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    if leaf.minimum is not None:
        bounds["$gt" if leaf.minimum_excluded else "$gte"] = _value(leaf.field, leaf.minimum)
    if leaf.maximum is not None:
        bounds["$lt" if leaf.maximum_excluded else "$lte"] = _value(leaf.field, leaf.maximum)
    if not bounds or leaf.field.type is FieldType.BOOLEAN:
        raise InvalidArgumentError.of(leaf.field.name, "must have a bound, and not be a boolean, to lie in a range")
    return bounds


def _path(field: Field) -> str:
    if not PATH.fullmatch(field.path):
        raise InvalidArgumentError.of(field.name, "must lie at one name or two that are no numbers and no operators")
    return field.path


def _value(field: Field, value: Scalar) -> str | float | bool | datetime:
    # Exact types: `bool` is an `int`, and a subclass of `str` could be encoded as something else.
    match field.type, value:
        case FieldType.STRING, str() if type(value) is str and not _SURROGATE.search(value):
            return value
        case FieldType.BOOLEAN, bool():
            return value
        case FieldType.NUMBER, float() if type(value) is float and math.isfinite(value):
            return value
        case FieldType.NUMBER, int() if type(value) is int and abs(value) <= 2**53:
            return float(value)
        case FieldType.TIME, int() if type(value) is int:
            return _moment(field, value)
    raise InvalidArgumentError.of(field.name, f"must be compared with a {field.type.value} that MongoDB can hold")


def _moment(field: Field, time_ms: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=time_ms)
    except OverflowError:
        raise InvalidArgumentError.of(field.name, "must be compared with a time of the years 1 to 9999") from None
