"""What the metadata of returned items must be like.

::

    (field("price") < 5) & field("country").one_of("France", "Spain") & ~field("discontinued").exists()
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

Value = str | float | bool | datetime
"""A value of a field; a `datetime` has a time zone, and counts to the millisecond."""


class Filter:
    """A condition, or several joined by ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        """Return the filter that passes when both do."""
        return AllOf((*_parts(AllOf, self), *_parts(AllOf, other)))

    def __or__(self, other: Filter) -> Filter:
        """Return the filter that passes when one of both does."""
        return AnyOf((*_parts(AnyOf, self), *_parts(AnyOf, other)))

    def __invert__(self) -> Filter:
        """Return the filter that passes when this one does not, also for items that lack its fields."""
        match self:
            case NoneOf((single,)):
                return single
            case NoneOf(filters):
                return AnyOf(filters)
        return NoneOf(_parts(AnyOf, self))

    def __bool__(self) -> NoReturn:
        raise TypeError("filters are joined by &, | and ~; write (field('a') > 1) & (field('a') < 5), not a chain")


@dataclass(frozen=True, slots=True)
class AllOf(Filter):
    """Passes when every one of ``filters`` does."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf(Filter):
    """Passes when at least one of ``filters`` does."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class NoneOf(Filter):
    """Passes when none of ``filters`` does."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Equals(Filter):
    """The field, declared with one value, holds this one."""

    field: str
    value: Value


@dataclass(frozen=True, slots=True)
class Contains(Filter):
    """The field, declared with several values, holds this one among others."""

    field: str
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf(Filter):
    """The field, or one of its values, is among these."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range(Filter):
    """The field lies in a range: at most one bound of each side."""

    field: str
    minimum: Value | None = None
    above: Value | None = None
    maximum: Value | None = None
    below: Value | None = None

    def __post_init__(self) -> None:
        if None not in (self.minimum, self.above) or None not in (self.maximum, self.below):
            raise ValueError("a range has at most one lower bound and one upper bound")
        if {self.minimum, self.above, self.maximum, self.below} == {None}:
            raise ValueError("a range has at least one bound")


@dataclass(frozen=True, slots=True)
class Exists(Filter):
    """The field is there, whatever it holds, null included."""

    field: str


class field:  # noqa: N801 - reads as the function it is used as
    """A declared field, to be compared: ``field("price") < 5``."""

    __slots__ = ("name",)
    __hash__ = None  # type: ignore[assignment]  # what == gives is no truth value, so it cannot be a key

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]  # builds a filter, as its like do
        """Return the filter that passes when the field, declared with one value, holds ``value``."""
        return Equals(self.name, _value(value))

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]  # builds a filter, as its like do
        """Return the filter that passes when the field does not hold ``value``, also where it is missing."""
        return ~Equals(self.name, _value(value))

    def __lt__(self, value: Value) -> Filter:
        """Return the filter that passes when the field is less than ``value``."""
        return Range(field=self.name, below=_value(value))

    def __le__(self, value: Value) -> Filter:
        """Return the filter that passes when the field is at most ``value``."""
        return Range(field=self.name, maximum=_value(value))

    def __gt__(self, value: Value) -> Filter:
        """Return the filter that passes when the field is more than ``value``."""
        return Range(field=self.name, above=_value(value))

    def __ge__(self, value: Value) -> Filter:
        """Return the filter that passes when the field is at least ``value``."""
        return Range(field=self.name, minimum=_value(value))

    def within(
        self,
        *,
        minimum: Value | None = None,
        above: Value | None = None,
        maximum: Value | None = None,
        below: Value | None = None,
    ) -> Filter:
        """Return the filter that passes when the field lies in a range: ``within(minimum=3, below=10)``.

        Of a field with several values, some may meet the one bound and others the other.

        Raises:
            ValueError: there is no bound, or two of one side.
        """
        bounds = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
        return Range(field=self.name, **{side: _value(bound) for side, bound in bounds.items() if bound is not None})

    def one_of(self, *values: Value) -> Filter:
        """Return the filter that passes when the field, or one of its values, is among 1 to 200 ``values``."""
        return OneOf(self.name, tuple(map(_value, values)))

    def contains(self, value: Value) -> Filter:
        """Return the filter that passes when the field, declared with several values, holds ``value``."""
        return Contains(self.name, _value(value))

    def exists(self) -> Filter:
        """Return the filter that passes when the field is there, whatever it holds."""
        return Exists(self.name)


def _value(value: object) -> Value:
    """Return ``value``, checked.

    Raises:
        TypeError: it is of a type that no field has.
        ValueError: it is a time without a time zone, or a whole number that the wire would round.
    """
    match value:
        case bool() | str() | float():
            return value
        case int():
            if not -(2**53) <= value <= 2**53:
                raise ValueError(f"numbers are sent as floats, and {value} may not be one")
            return value
        case datetime():
            if value.tzinfo is None:
                raise ValueError(f"{value!r} has no time zone, so it could be any of several moments")
            return value
    raise TypeError(f"a field holds strings, numbers, booleans or times, never {value!r}")


def _parts(kind: type[AllOf | AnyOf], filter_: Filter) -> tuple[Filter, ...]:
    """Return what ``filter_`` joins in the way of ``kind``, so that long chains do not nest."""
    return filter_.filters if isinstance(filter_, AllOf | AnyOf) and isinstance(filter_, kind) else (filter_,)
