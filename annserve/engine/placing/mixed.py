"""For which candidates a mixed condition holds, part by part: what is dear is asked only of those still undecided."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from annserve.domain.filter import Filter
from annserve.engine.placing.candidate_fields import Values
from annserve.engine.placing.circumstances import Circumstances
from annserve.engine.placing.flags import Flags
from annserve.engine.ranking import Ranking
from annserve.engine.unit_vectors import cosines
from annserve.placements.parts import AllOf, AnyOf, Compared, OfEach, OfItems, OfRequest, Part
from annserve.placements.variables import CONTEXT_ITEM, ITEM_PREFIX, SCORE, USER_ITEM

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class MixedConditions:
    """Decides conditions over the candidates of one ranking."""

    def __init__(
        self,
        ranking: Ranking,
        circumstances: Circumstances,
        passing: Mapping[Filter, Flags],
        fields: Mapping[str, Sequence[Values]],
    ) -> None:
        """Decide by what is known: ``passing`` of filters and ``fields``, all that conditions may read."""
        self._ranking = ranking
        self._values = circumstances.values
        self._passing = passing
        self._fields = fields
        self._numbers: dict[str, np.ndarray[Any, np.dtype[np.float64]] | None] = {}

    def flags(self, part: Part) -> Flags:
        """Return for which candidates ``part`` holds."""
        return self._holding(part, np.ones(len(self._ranking.rows), np.bool_))

    def _holding(self, part: Part, among: Flags) -> Flags:
        """Return for which candidates ``among`` those given ``part`` holds; the argument is not modified."""
        match part:
            case OfRequest():
                holds = part.expression.evaluate(self._values) is part.wanted
                return among if holds else np.zeros_like(among)
            case OfItems():
                return among & self._passing[part.filter]
            case Compared():
                return self._compared(part, among)
            case OfEach():
                return self._each(part, among)
            case AllOf(parts=parts):
                for inner in parts:
                    if not among.any():
                        break
                    among = self._holding(inner, among)
                return among
            case AnyOf(parts=parts):
                left = among
                for inner in parts:
                    if not left.any():
                        break
                    left = left & ~self._holding(inner, left)
                return among & ~left

    def _compared(self, part: Compared, among: Flags) -> Flags:
        compare, left = _OPERATORS[part.operator], part.left
        bound = part.constant if part.right is None else part.right.plain(self._values.get(part.right.name))
        if bound is None:
            return np.zeros_like(among)
        if left.field is None:
            numbers = self._numbers_of(left.name)
            if numbers is None:
                return np.zeros_like(among)
            held: Flags = compare(numbers, bound) == part.wanted
            return among & held

        def decide(values: Values) -> bool:
            value = left.plain(values)
            return value is not None and compare(value, bound) is part.wanted

        return _decided(decide, self._fields[left.field.name], among)

    def _each(self, part: OfEach, among: Flags) -> Flags:
        names = [ITEM_PREFIX + field.name for field in part.fields]
        columns: list[Sequence[object]] = [self._fields[field.name] for field in part.fields]
        for name in (SCORE, USER_ITEM, CONTEXT_ITEM):
            numbers = self._numbers_of(name) if name in part.expression.names else None
            if numbers is not None:
                names.append(name)
                columns.append(numbers.tolist())
        known = dict(self._values)

        def decide(values: tuple[object, ...]) -> bool:
            known.update(zip(names, values, strict=True))
            return part.expression.evaluate(known) is part.wanted

        return _decided(decide, list(zip(*columns, strict=True)) if columns else [()] * len(among), among)

    def _numbers_of(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """Return the score of each candidate, or one of its cosines; None where there is none."""
        if name not in self._numbers:
            ranking, vectors = self._ranking, self._ranking.vectors
            found = ranking.scores
            if name != SCORE:
                user = None if vectors.affinity is None else vectors.affinity[:-1]
                found = cosines(ranking.items, ranking.rows, user if name == USER_ITEM else vectors.likeness)
            self._numbers[name] = found.astype(np.float64) if len(found) == len(ranking.rows) else None
        return self._numbers[name]


def _decided(decide: Callable[[Any], bool], values: Sequence[Hashable], among: Flags) -> Flags:
    """Return for whom ``among`` those given ``decide`` says so: asked once for candidates with equal ``values``."""
    positions: list[int] = among.nonzero()[0].tolist()
    known: dict[Hashable, bool] = {}
    held: list[int] = []
    for position in positions:
        value = values[position]
        is_held = known.get(value)
        if is_held is None:
            is_held = known[value] = decide(value)
        if is_held:
            held.append(position)
    found = np.zeros_like(among)
    found[held] = True
    return found
