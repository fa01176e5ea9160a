"""The circumstances of a request, as expressions read them, and the policy row that they lead to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from annserve.domain.arrays import Vectors
from annserve.domain.errors import FieldViolation, InvalidArgumentError
from annserve.domain.query import ContextValue
from annserve.engine.query_vectors import QueryVectors
from annserve.placements.recipe import Expression, Number, Placement, PolicyRow, Recipe
from annserve.placements.variables import (
    CONTEXT_KNOWN,
    CONTEXT_PREFIX,
    HOUR,
    USER_CONTEXT,
    USER_KNOWN,
    WEEKDAY,
    WEEKDAYS,
)

_TYPES: Final[Mapping[str, type]] = {"string": str, "double": float, "bool": bool, "timestamp": datetime}
_WORDS: Final = {str: "a string", float: "a number", bool: "a boolean", datetime: "a time"}
"""What files and documentation call them."""

_zone = lru_cache(64)(ZoneInfo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known of a request beside its ids."""

    values: Mapping[str, object]
    """By the name that expressions have for it; what is missing has no name here."""
    _held: dict[int, bool] = dataclasses.field(default_factory=dict, init=False, repr=False)
    """What came of conditions, which are asked for more than once; by identity."""

    @property
    def similarity(self) -> float | None:
        """See `domain.query.PlacementUse.user_context_similarity`."""
        value = self.values.get(USER_CONTEXT)
        return value if isinstance(value, float) else None

    def hold(self, condition: Expression | None) -> bool:
        """Return whether ``condition`` holds: None always does, one that cannot be decided does not."""
        if condition is None:
            return True
        held = self._held.get(id(condition))
        if held is None:
            held = self._held[id(condition)] = condition.evaluate(self.values) is True
        return held

    def share(self, number: Number) -> float:
        """Return ``number`` within 0 to 1; 0.5 where it cannot be told."""
        value = number if isinstance(number, int | float) else number.evaluate(self.values)
        return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.5

    def policy_row(self, recipe: Recipe) -> PolicyRow | None:
        """Return the first row that holds; None when none does."""
        return next((row for row in recipe.policy if self.hold(row.when)), None)


def check_context(placement: Placement, context: Mapping[str, ContextValue]) -> None:
    """Refuse a ``context`` with a name that ``placement`` does not declare, or a value of another type.

    Raises:
        InvalidArgumentError: it lists them all.
    """
    violations = [
        FieldViolation(field="context", description=problem)
        for name, value in context.items()
        if (problem := _problem(placement, name, value)) is not None
    ]
    if violations:
        raise InvalidArgumentError(violations)


def is_declared(placement: Placement, name: str, value: ContextValue) -> bool:
    """Return whether ``placement`` has a name in its context that takes ``value``."""
    return _problem(placement, name, value) is None


def request_values(
    placement: Placement, recipe: Recipe, context: Mapping[str, ContextValue], now: datetime
) -> dict[str, object]:
    """Return what expressions may read of a request: its context, or the defaults of the file, and the clock."""
    values: dict[str, object] = {}
    for name, field in placement.context.items():
        value = context.get(name, field.default)
        if value is not None:
            values[CONTEXT_PREFIX + name] = value
    if recipe.reads_clock:
        local = _local(placement, now)
        values[HOUR], values[WEEKDAY] = float(local.hour), WEEKDAYS[local.weekday()]
    return values


def vector_values(vectors: QueryVectors) -> dict[str, object]:
    """Return what expressions may read of the vectors of a request."""
    user, context = vectors.affinity, vectors.likeness
    values: dict[str, object] = {USER_KNOWN: user is not None, CONTEXT_KNOWN: context is not None}
    if user is not None and context is not None:
        values[USER_CONTEXT] = cosine(user[:-1], context)
    return values


def cosine(one: Vectors, other: Vectors) -> float:
    """Return the cosine of two vectors; 0 where one of them has no length."""
    length = float(np.sqrt(np.dot(one, one) * np.dot(other, other)))
    return float(np.dot(one, other)) / length if length > 0 else 0.0


def hour_number(placement: Placement, now: datetime) -> int:
    """Return a number that each hour has to itself, by the clock of the placement."""
    local = _local(placement, now)
    return local.toordinal() * 24 + local.hour


def _local(placement: Placement, now: datetime) -> datetime:
    return now.astimezone(_zone(placement.time_zone))


def _problem(placement: Placement, name: str, value: ContextValue) -> str | None:
    field = placement.context.get(name)
    if field is None:
        known = ", ".join(placement.context) or "none"
        return f"{name[:64]!r} is not declared by placement {placement.name!r}; the names are {known}"
    if type(value) is not (type_ := _TYPES[field.type]):
        return f"{name!r} must be {_WORDS[type_]}, got {_WORDS[type(value)]}"
    return None
