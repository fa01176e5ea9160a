"""``where``: values that fields must have, as a filter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from annserve.domain.catalog import Schema
from annserve.domain.filter import Equals, Field, FieldType, Filter, In, Range, Scalar
from annserve.placements.expression_parser import parse_time
from annserve.placements.expression_tree import ExpressionError, milliseconds
from annserve.placements.findings import Findings
from annserve.placements.variables import nearest
from annserve.placements.yaml_text import Path

VALUES_MAX: Final = 1_000

_BOUNDS: Final = ("minimum", "above", "maximum", "below")


class _NoValueError(Exception):
    """What a field cannot have; worded to follow a path."""


def filters_of(where: Mapping[str, Any], schema: Schema, path: Path, findings: Findings) -> Iterator[Filter]:
    """Return a filter for each entry of ``where`` that is right; what is wrong is noted."""
    for name, wanted in where.items():
        field = schema.field(name)
        if field is None:
            hint = nearest(name, schema.fields)
            findings.add(
                (*path, name), f"is no declared field; did you mean {hint!r}?" if hint else schema.unknown(name)
            )
            continue
        try:
            yield _filter(field, wanted)
        except _NoValueError as problem:
            findings.add((*path, name), str(problem), at_value=True)


def _filter(field: Field, wanted: Any) -> Filter:
    if isinstance(wanted, dict):
        return _range(field, wanted)
    if isinstance(wanted, list):
        if not 1 <= len(wanted) <= VALUES_MAX:
            raise _NoValueError(f"must have 1 to {VALUES_MAX:,} values, got {len(wanted):,}")
        return In(field, tuple(_scalar(field, value) for value in wanted))
    return Equals(field, _scalar(field, wanted))


def _range(field: Field, bounds: Mapping[str, Any]) -> Filter:
    if field.type is FieldType.BOOLEAN:
        raise _NoValueError("is true or false, which no bounds are for")
    unknown = [name for name in bounds if name not in _BOUNDS]
    if unknown or not bounds:
        raise _NoValueError(
            f"a mapping here is of {', '.join(_BOUNDS)}" + (f", got {unknown[0][:40]!r}" * bool(unknown))
        )
    for first, second in (("minimum", "above"), ("maximum", "below")):
        if first in bounds and second in bounds:
            raise _NoValueError(f"takes {first} or {second}, not both")
    values = {name: _scalar(field, value) for name, value in bounds.items()}
    return Range(
        field,
        values.get("minimum", values.get("above")),
        values.get("maximum", values.get("below")),
        "above" in values,
        "below" in values,
    )


def _scalar(field: Field, value: Any) -> Scalar:
    match field.type:
        case FieldType.STRING if isinstance(value, str):
            return value
        case FieldType.STRING if type(value) is int:
            raise _NoValueError(f"is a string: write '{value}' in quotes")
        case FieldType.BOOLEAN if isinstance(value, bool):
            return value
        case FieldType.NUMBER if (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ):
            return float(value)
        case FieldType.TIME if isinstance(value, str):
            try:
                return milliseconds(parse_time(value, 0))
            except ExpressionError as error:
                raise _NoValueError(error.problem) from None
    raise _NoValueError(f"must be a {field.type.value}, as {field.name!r} is declared, got {str(value)[:40]!r}")
