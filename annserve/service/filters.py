"""A filter's message to the filter it stands for, typed by the declared fields, in canonical form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from annserve.domain.catalog import Schema
from annserve.domain.filter import (
    And,
    Equals,
    Exists,
    Field,
    FieldType,
    Filter,
    In,
    Not,
    Or,
    Range,
    Scalar,
    canonical,
)
from annserve.service import limits
from annserve.v1 import filter_pb2 as messages

_KINDS: Final = {
    FieldType.STRING: "string_value",
    FieldType.NUMBER: "number_value",
    FieldType.BOOLEAN: "bool_value",
    FieldType.TIME: "time_value",
}
_NAME_ECHO_MAX: Final = 64


def read_filter(
    message: messages.Filter, schema: Schema, path: str, add_violation: Callable[[str, str], None]
) -> Filter | None:
    """Return the filter that ``message`` stands for.

    Args:
        message: What came in, of any depth and size.
        schema: The fields it may name.
        path: What the message is called in the request.
        add_violation: Told of everything that is wrong, by path and description.

    Returns:
        The filter, or None when something is wrong.
    """
    reader = _Reader(schema, add_violation)
    filter_ = reader.filter(message, path, depth=1)
    reader.check_totals(path)
    return canonical(filter_) if filter_ is not None else None


def unknown_field(schema: Schema, name: str) -> str:
    """Return what to say of a ``name`` that is not declared, however long it is."""
    return schema.unknown(name[:_NAME_ECHO_MAX])


class _Reader:
    """Reads one filter. Depth and totals are bounded while it does: what is beyond is counted and not looked at."""

    __slots__ = ("_add_violation", "_node_count", "_schema", "_value_count")

    def __init__(self, schema: Schema, add_violation: Callable[[str, str], None]) -> None:
        self._schema = schema
        self._add_violation = add_violation
        self._node_count = 0
        self._value_count = 0

    def check_totals(self, path: str) -> None:
        if self._node_count > limits.FILTER_NODES_MAX:
            self._add_violation(path, f"must have at most {limits.FILTER_NODES_MAX} nodes")
        if self._value_count > limits.FILTER_VALUES_MAX:
            self._add_violation(path, f"must have at most {limits.FILTER_VALUES_MAX:,} values in all")

    def filter(self, message: messages.Filter, path: str, depth: int) -> Filter | None:
        self._node_count += 1
        if self._node_count > limits.FILTER_NODES_MAX:
            return None
        if depth > limits.FILTER_DEPTH_MAX:
            self._add_violation(path, f"must be nested at most {limits.FILTER_DEPTH_MAX} deep")
            return None
        match message.WhichOneof("kind"):
            case "condition":
                return self._condition(message.condition, f"{path}.condition")
            case "all_of":
                filters = self._filters(message.all_of.filters, f"{path}.all_of.filters", depth)
                return And(filters) if filters else None
            case "any_of":
                filters = self._filters(message.any_of.filters, f"{path}.any_of.filters", depth)
                return Or(filters) if filters else None
            case "none_of":
                filters = self._filters(message.none_of.filters, f"{path}.none_of.filters", depth)
                return Not(Or(filters)) if filters else None
            case None:
                self._add_violation(path, "one of condition, all_of, any_of, none_of must be set")
                return None

    def _filters(self, filters: Sequence[messages.Filter], path: str, depth: int) -> tuple[Filter, ...]:
        """Return all of ``filters``, or nothing when one of them is wrong."""
        if problem := limits.FILTERS.problem(len(filters)):
            self._add_violation(path, problem)
            return ()
        read = [self.filter(inner, f"{path}[{position}]", depth + 1) for position, inner in enumerate(filters)]
        return () if None in read else tuple(inner for inner in read if inner is not None)

    def _condition(self, message: messages.FieldCondition, path: str) -> Filter | None:
        field = self._schema.field(message.field)
        if field is None:
            self._add_violation(f"{path}.field", unknown_field(self._schema, message.field))
            return None
        match message.WhichOneof("test"):
            case "equals":
                if field.many:
                    self._add_violation(f"{path}.equals", f"{field.name!r} has several values: use contains or one_of")
                    return None
                return self._equals(field, message.equals, f"{path}.equals")
            case "contains":
                if not field.many:
                    self._add_violation(f"{path}.contains", f"{field.name!r} has one value: use equals or one_of")
                    return None
                return self._equals(field, message.contains, f"{path}.contains")
            case "one_of":
                return self._one_of(field, message.one_of.values, f"{path}.one_of.values")
            case "range":
                return self._range(field, message.range, f"{path}.range")
            case "exists":
                return Exists(field) if message.exists else Not(Exists(field))
            case None:
                self._add_violation(path, "one of equals, one_of, range, exists, contains must be set")
                return None

    def _equals(self, field: Field, message: messages.FieldValue, path: str) -> Filter | None:
        value = self._value(field, message, path)
        return None if value is None else Equals(field, value)

    def _one_of(self, field: Field, listed: Sequence[messages.FieldValue], path: str) -> Filter | None:
        if problem := limits.ONE_OF.problem(len(listed)):
            self._add_violation(path, problem)
            return None
        values = [self._value(field, message, path, position) for position, message in enumerate(listed)]
        return None if None in values else In(field, tuple(value for value in values if value is not None))

    def _range(self, field: Field, message: messages.FieldRange, path: str) -> Filter | None:
        if field.type is FieldType.BOOLEAN:
            self._add_violation(path, f"is not for booleans, and {field.name!r} is one: use equals")
            return None
        lower, upper = message.WhichOneof("lower"), message.WhichOneof("upper")
        if lower is None and upper is None:
            self._add_violation(path, "one of minimum, above, maximum, below must be set")
            return None
        minimum = None if lower is None else self._value(field, getattr(message, lower), f"{path}.{lower}")
        maximum = None if upper is None else self._value(field, getattr(message, upper), f"{path}.{upper}")
        if (minimum is None) != (lower is None) or (maximum is None) != (upper is None):
            return None
        return Range(field, minimum, maximum, lower == "above", upper == "below")

    def _value(
        self, field: Field, message: messages.FieldValue, path: str, position: int | None = None
    ) -> Scalar | None:
        """Return the value, or None when it is wrong."""
        self._value_count += 1
        if self._value_count > limits.FILTER_VALUES_MAX:
            return None
        try:
            return _scalar(field, message)
        except ValueError as problem:
            self._add_violation(path if position is None else f"{path}[{position}]", str(problem))
            return None


def _scalar(field: Field, message: messages.FieldValue) -> Scalar:
    """Return the value as `field` is declared.

    Raises:
        ValueError: it is no such value; worded to follow its path.
    """
    kind = message.WhichOneof("kind")
    if kind != _KINDS[field.type]:
        raise ValueError(f"must be a {_KINDS[field.type]}, as {field.name!r} is declared, got {kind or 'none'}")
    match kind:
        case "string_value":
            # No character is refused: NUL and the like are what documents may hold, and compare as any other.
            string: str = message.string_value
            byte_count = len(string) if string.isascii() else len(string.encode())
            if problem := limits.STRING_BYTES.problem(byte_count):
                raise ValueError(problem)
            return string
        case "number_value":
            number: float = message.number_value
            if not math.isfinite(number):
                raise ValueError(f"must be a finite number, got {number}")
            return number
        case "bool_value":
            return bool(message.bool_value)
        case _:
            return _milliseconds(message.time_value)


def _milliseconds(time: Timestamp) -> int:
    if not limits.TIME_SECONDS_MIN <= time.seconds <= limits.TIME_SECONDS_MAX or not 0 <= time.nanos < 1_000_000_000:
        raise ValueError("must be a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z")
    return time.seconds * 1_000 + time.nanos // 1_000_000
