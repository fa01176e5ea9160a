"""What expressions may read: names, their types, and how the values that the engine gives become CEL's.

========================== ============================================================================================
`request.hour`             0 to 23, in the placement's time zone
`request.weekday`          ``"monday"`` to ``"sunday"``, there too
`request.user_known`       whether the user has a vector, or recent items to make one of
`request.context_known`    whether one of the request's items has a vector
`context.NAME`             a circumstance that the file declares
`similarity(user, context)` the cosine of the user's bare vector and the request's items' mean unit vector
`item.NAME`                a declared field of the candidate's metadata
`score`                    the candidate's, before rules
`similarity(user, item)`, `similarity(context, item)`   cosines with the candidate's bare vector
========================== ============================================================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from annserve.domain.catalog import Schema
from annserve.domain.filter import Field, FieldType
from annserve.placements.recipe import ContextField

HOUR: Final = "request.hour"
WEEKDAY: Final = "request.weekday"
USER_KNOWN: Final = "request.user_known"
CONTEXT_KNOWN: Final = "request.context_known"
USER_CONTEXT: Final = "similarity(user, context)"
SCORE: Final = "score"
USER_ITEM: Final = "similarity(user, item)"
CONTEXT_ITEM: Final = "similarity(context, item)"
CONTEXT_PREFIX: Final = "context."
ITEM_PREFIX: Final = "item."

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""By `datetime.weekday`."""

CLOCK: Final = frozenset({HOUR, WEEKDAY})

_PLAIN: Final = {FieldType.NUMBER: float, FieldType.STRING: str, FieldType.TIME: int}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE_MS: Final = timedelta(milliseconds=1)


class Scope(Enum):
    """When a variable is known."""

    REQUEST = "request"
    """Once a request."""
    CANDIDATE = "candidate"
    """For each candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """Something that an expression may read."""

    name: str
    """As in `Expression.names`."""
    type: FieldType
    many: bool = False
    scope: Scope
    field: Field | None = None
    """The item's field that it is."""

    @property
    def cel_name(self) -> str:
        """What CEL knows it by: one identifier, which is none of its reserved words."""
        return "v_" + "".join(character if character.isalnum() else "_" for character in self.name)

    def cel_value(self, value: object) -> object:
        """Return ``value`` as CEL takes it; one of another type gives one that CEL refuses."""
        if self.many:
            elements = value if isinstance(value, tuple | list) else [value]
            return [self._plain(element) for element in elements]
        # Metadata has a tuple a field.
        plain = value[0] if type(value) is tuple and len(value) == 1 else value
        return plain if type(plain) in (float, str) else self._plain(plain)

    def plain(self, value: object) -> float | str | int | None:
        """Return ``value``, a number, text or time, as Python can compare it; None where CEL has nothing to compare.

        The outcome is CEL's: numbers are doubles, texts are ordered by code point, times are whole milliseconds.
        """
        if value is None or value == ():
            return None
        try:
            plain = self.cel_value(value)
        except OverflowError:
            return None
        return plain if type(plain) is _PLAIN.get(self.type) else None  # type: ignore[return-value]

    def _plain(self, value: object) -> object:
        if self.type is FieldType.NUMBER and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if self.type is FieldType.TIME and isinstance(value, datetime):
            return (value - _EPOCH) // _ONE_MS
        return value


_GIVEN: Final = (
    Variable(name=HOUR, type=FieldType.NUMBER, scope=Scope.REQUEST),
    Variable(name=WEEKDAY, type=FieldType.STRING, scope=Scope.REQUEST),
    Variable(name=USER_KNOWN, type=FieldType.BOOLEAN, scope=Scope.REQUEST),
    Variable(name=CONTEXT_KNOWN, type=FieldType.BOOLEAN, scope=Scope.REQUEST),
    Variable(name=USER_CONTEXT, type=FieldType.NUMBER, scope=Scope.REQUEST),
    Variable(name=SCORE, type=FieldType.NUMBER, scope=Scope.CANDIDATE),
    Variable(name=USER_ITEM, type=FieldType.NUMBER, scope=Scope.CANDIDATE),
    Variable(name=CONTEXT_ITEM, type=FieldType.NUMBER, scope=Scope.CANDIDATE),
)
_TYPES: Final = {
    "string": FieldType.STRING,
    "double": FieldType.NUMBER,
    "bool": FieldType.BOOLEAN,
    "timestamp": FieldType.TIME,
}


class Variables:
    """All that the expressions of one placement may read."""

    def __init__(self, schema: Schema, context: Mapping[str, ContextField]) -> None:
        declared = [
            Variable(name=f"{CONTEXT_PREFIX}{name}", type=_TYPES[field.type], scope=Scope.REQUEST)
            for name, field in context.items()
        ]
        items = [
            Variable(
                name=ITEM_PREFIX + field.name, type=field.type, many=field.many, scope=Scope.CANDIDATE, field=field
            )
            for field in schema.fields.values()
        ]
        self.by_name: Mapping[str, Variable] = {one.name: one for one in (*_GIVEN, *declared, *items)}

    def get(self, name: str) -> Variable | None:
        """Return the variable called ``name``, None when there is none."""
        return self.by_name.get(name)

    def unknown(self, name: str) -> str:
        """Return what to say of a name that there is not: what it may have meant, or what there is."""
        prefix = name.partition(".")[0] + "."
        if prefix == CONTEXT_PREFIX and not any(known.startswith(prefix) for known in self.by_name):
            return f"there is no {name!r}: declare it under `context`"
        hint = nearest(name, self.by_name)
        if hint is not None:
            return f"there is no {name!r}; did you mean {hint!r}?"
        known = [one for one in self.by_name if one.startswith(prefix)] or list(self.by_name)
        return f"there is no {name!r}; there are {', '.join(known[:20])}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that a person who wrote ``name`` may have meant."""
    found = difflib.get_close_matches(name[:80], list(known), n=1, cutoff=0.6)
    return found[0] if found else None
