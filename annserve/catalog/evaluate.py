"""A filter judged on one document, exactly as MongoDB judges it: what change streams are followed with.

Values are Python's or pymongo's (whose `DatetimeMS`, `Decimal128` and `DBRef` are known by their methods, so that this
needs no pymongo). A path's first name may lead to a list of documents, and each of them to a list: one level is
looked into each time, and a list within a list is no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from annserve.domain.catalog import Document, Metadata
from annserve.domain.filter import And, Equals, Exists, Field, FieldType, Filter, In, Not, Or, Range, Scalar

Comparable: TypeAlias = Any
"""A value as a test of its field's type compares it: `str`; `bool`; `int`, `float` or `Decimal`; a time's `int` ms."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MS = timedelta(milliseconds=1)


def matches(filter_: Filter, document: Document) -> bool:
    """Return whether ``document`` passes ``filter_``."""
    match filter_:
        case And(filters):
            return all(matches(inner, document) for inner in filters)
        case Or(filters):
            return any(matches(inner, document) for inner in filters)
        case Not(inner):
            return not matches(inner, document)
        case Exists(field):
            return bool(found_at(field.path, document))
        case _:
            values = list(comparables(filter_.field.type, found_at(filter_.field.path, document)))
            return all(any(map(predicate_of(part), values)) for part in parts_of(filter_))


def metadata_of(fields: Sequence[Field], document: Document) -> Metadata:
    """Return the values of ``fields`` in ``document``, numbers as finite floats; a field without any is left out."""
    metadata = {field.name: scalars_of(field, found_at(field.path, document)) for field in fields}
    return {name: values for name, values in metadata.items() if values}


def found_at(path: str, document: Document) -> Sequence[object]:
    """Return what ``path`` leads to in ``document``, lists as they are: nothing where it leads nowhere."""
    first, _, second = path.partition(".")
    if first not in document:
        return ()
    outer = document[first]
    if not second:
        return (outer,)
    embedded = map(_as_document, outer if isinstance(outer, list | tuple) else (outer,))
    return [inner[second] for inner in embedded if inner is not None and second in inner]


def comparables(type_: FieldType, found: Sequence[object]) -> Iterator[Comparable]:
    """Yield those values among ``found``, and in the lists there, that a test of ``type_`` can pass; NaN is none."""
    comparable = _COMPARABLE[type_]
    for value in found:
        for element in value if isinstance(value, list | tuple) else (value,):
            if (known := comparable(element)) is not None:
                yield known


def scalars_of(field: Field, found: Sequence[object]) -> tuple[Scalar, ...]:
    """Return as `Scalar` values what was ``found`` of a field: of one that is not ``many``, the only one or none."""
    if not field.many and (len(found) != 1 or isinstance(found[0], list | tuple)):
        return ()
    values = comparables(field.type, found)
    if field.type is FieldType.NUMBER:
        return tuple(value for value in map(as_float, values) if math.isfinite(value))
    return tuple(values)


def parts_of(leaf: Equals | In | Range) -> Sequence[Equals | In | Range]:
    """Return what ``leaf`` asks of a field: of several values, one may reach the minimum and another the maximum."""
    match leaf:
        case Range(field, minimum, maximum) if minimum is not None and maximum is not None:
            return (
                Range(field, minimum=minimum, minimum_excluded=leaf.minimum_excluded),
                Range(field, maximum=maximum, maximum_excluded=leaf.maximum_excluded),
            )
        case _:
            return (leaf,)


def predicate_of(leaf: Equals | In | Range) -> Callable[[Comparable], bool]:
    """Return the test that ``leaf``, one of `parts_of`, makes of each of a field's comparable values.

    Python compares `int`, `float` and `Decimal` as the numbers they are, and so does MongoDB.
    """
    match leaf:
        case Equals(_, value):
            return lambda comparable: bool(comparable == value)
        case In(_, values):
            return frozenset(values).__contains__
        case Range():
            return lambda comparable: _is_within(leaf, comparable)


def as_float(number: Comparable) -> float:
    """Return the float nearest to ``number``, infinity when it is out of range."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _is_within(leaf: Range, comparable: Comparable) -> bool:
    low, high = leaf.minimum, leaf.maximum
    return (low is None or bool(comparable > low if leaf.minimum_excluded else comparable >= low)) and (
        high is None or bool(comparable < high if leaf.maximum_excluded else comparable <= high)
    )


def _as_document(value: object) -> Document | None:
    if isinstance(value, Mapping):
        return value
    # pymongo makes a DBRef of a document that looks like one.
    as_doc = getattr(value, "as_doc", None)
    return None if as_doc is None else as_doc()


def _as_string(value: object) -> str | None:
    # Not `isinstance`: pymongo's Code is a `str` too, and no string to MongoDB.
    return value if type(value) is str else None


def _as_number(value: object) -> int | float | Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    # Of its type: a DBRef offers the fields of its document as attributes of its own.
    to_decimal = getattr(type(value), "to_decimal", None)
    return None if to_decimal is None else _as_number(to_decimal(value))


def _as_boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _as_time(value: object) -> int | None:
    if isinstance(value, datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH) // _ONE_MS
    # A DatetimeMS: the only type with both, where an ObjectId, a UUID, a Timestamp and a number have one or none.
    return int(value) if hasattr(value, "__int__") and hasattr(value, "as_datetime") else None


_COMPARABLE: Mapping[FieldType, Callable[[object], Comparable | None]] = {
    FieldType.STRING: _as_string,
    FieldType.NUMBER: _as_number,
    FieldType.BOOLEAN: _as_boolean,
    FieldType.TIME: _as_time,
}
