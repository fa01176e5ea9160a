"""What an item's metadata must be like: typed tests of declared fields, joined by and, or and not.

A test means what MongoDB means by the operator it is compiled to, and a path that leads to a list passes when one of
its elements does. So with several values ``price < 5 and price > 3`` may be two different ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class FieldType(str, Enum):
    """What kind of value a declared field holds; values of another kind fail every test but `Exists`."""

    STRING = "string"
    """Compared by code point."""
    NUMBER = "number"
    """Integers and floats alike, compared as the numbers they are."""
    BOOLEAN = "boolean"
    TIME = "time"
    """A moment, in whole milliseconds of UTC."""

    # Filters are looked up by what they hold, several times for each answer: an enumeration's own hash is slow.
    __hash__ = str.__hash__


Scalar: TypeAlias = str | float | bool | int
"""A value: `str` (string), finite `float` (number), `bool` (boolean), `int` milliseconds since 1970 UTC (time)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A declared field of the items' metadata."""

    name: str
    """How requests call it: letters, digits and underscores."""
    type: FieldType
    many: bool = False
    """Whether documents hold a list of such values."""
    path: str
    """Where it is in a document: one name, or two joined by a dot; no name is a number or starts with ``$``."""


@dataclass(frozen=True, slots=True)
class Equals:
    """The field holds ``value``; of a list, among others."""

    field: Field
    value: Scalar


@dataclass(frozen=True, slots=True)
class In:
    """The field holds one of ``values``: at least one, ascending, without repeats once `canonical`."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between the bounds; at least one is given, and none is a boolean."""

    field: Field
    minimum: Scalar | None = None
    maximum: Scalar | None = None
    minimum_excluded: bool = False
    maximum_excluded: bool = False


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, whatever it holds, null included."""

    field: Field


@dataclass(frozen=True, slots=True)
class And:
    """Every one of ``filters`` passes; there is at least one."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of ``filters`` passes; there is at least one."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """``filter`` does not pass: the exact complement among the items of the catalogue."""

    filter: Filter


Leaf: TypeAlias = Equals | In | Range | Exists
Filter: TypeAlias = Leaf | And | Or | Not


def canonical(filter_: Filter) -> Filter:
    """Return an equal filter in the one form that equal filters share, as far as reordering and flattening show it."""
    match filter_:
        case And(filters):
            return _joined(And, filters)
        case Or(filters):
            return _joined(Or, filters)
        case Not(inner):
            inner = canonical(inner)
            return inner.filter if isinstance(inner, Not) else Not(inner)
        case In(field, values):
            ordered = tuple(sorted({_plain(value) for value in values}))
            return Equals(field, ordered[0]) if len(ordered) == 1 else In(field, ordered)
        case Equals(field, value):
            return Equals(field, _plain(value))
        case Range(field, minimum, maximum, minimum_excluded, maximum_excluded):
            return Range(
                field,
                None if minimum is None else _plain(minimum),
                None if maximum is None else _plain(maximum),
                minimum_excluded and minimum is not None,
                maximum_excluded and maximum is not None,
            )
        case Exists():
            return filter_


def key_of(filter_: Filter) -> str:
    """Return a text that two canonical filters share only if they are equal; the same in every process."""
    match filter_:
        case And(filters):
            return f"and({','.join(map(key_of, filters))})"
        case Or(filters):
            return f"or({','.join(map(key_of, filters))})"
        case Not(inner):
            return f"not({key_of(inner)})"
        case Equals(field, value):
            return f"eq({_field_key(field)},{value!r})"
        case In(field, values):
            return f"in({_field_key(field)},{','.join(map(repr, values))})"
        case Range(field, minimum, maximum, minimum_excluded, maximum_excluded):
            opening, closing = "(" if minimum_excluded else "[", ")" if maximum_excluded else "]"
            return f"range({_field_key(field)},{opening}{minimum!r},{maximum!r}{closing})"
        case Exists(field):
            return f"exists({_field_key(field)})"


def leaves_of(filter_: Filter) -> Iterator[Leaf]:
    """Return the leaves of ``filter_``, repeated where it repeats them."""
    match filter_:
        case And(filters) | Or(filters):
            for inner in filters:
                yield from leaves_of(inner)
        case Not(inner):
            yield from leaves_of(inner)
        case _:
            yield filter_


def _joined(kind: type[And | Or], filters: Sequence[Filter]) -> Filter:
    parts: dict[str, Filter] = {}
    for inner in map(canonical, filters):
        for part in inner.filters if isinstance(inner, kind) else (inner,):
            parts[key_of(part)] = part
    ordered = tuple(parts[key] for key in sorted(parts))
    return ordered[0] if len(ordered) == 1 else kind(ordered)


def _plain(value: Scalar) -> Scalar:
    """Return ``value``, negative zero as the zero it equals."""
    return 0.0 if isinstance(value, float) and math.copysign(1.0, value) < 0 and value == 0 else value


def _field_key(field: Field) -> str:
    return f"{field.path}:{field.type.value}"
