"""What a placement's rules make of its candidates: a factor for each, and the values that caps count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from annserve.domain.arrays import Scores
from annserve.domain.deadline import Deadline
from annserve.domain.query import CatalogUse
from annserve.engine.placing.candidate_fields import Values
from annserve.engine.placing.candidate_reader import CandidateReader
from annserve.engine.placing.circumstances import Circumstances
from annserve.engine.placing.flags import Flags
from annserve.engine.placing.method import Method
from annserve.engine.ranking import Ranking
from annserve.engine.unit_vectors import cosines
from annserve.placements.recipe import Expression, WeightRule
from annserve.placements.variables import CONTEXT_ITEM, ITEM_PREFIX, SCORE, USER_ITEM

_UNCHANGED = np.float32(1.0)


@dataclass(slots=True, kw_only=True, eq=False)
class Ruled:
    """What rules say of candidates; a rule that could not be applied is left out."""

    weights: dict[str, Scores]
    """By rule, in the order of the recipe."""
    values: Mapping[str, Sequence[Values]]
    """By name of a cap."""
    is_skipped: bool
    """Whether some could not be applied."""


async def ruled(
    method: Method,
    ranking: Ranking,
    circumstances: Circumstances,
    reader: CandidateReader | None,
    max_staleness_seconds: float | None,
    deadline: Deadline,
    use: CatalogUse,
) -> Ruled:
    """Return what the recipe's weights and caps say of ``ranking``; without a ``reader``, of no metadata."""
    rows, recipe = ranking.rows, method.recipe
    passing: Sequence[Flags | None] = [None] * len(method.item_filters)
    fields: Mapping[str, Sequence[Values]] | None = None if method.field_names else {}
    if reader is not None and method.item_filters:
        passing = await reader.passing(method.item_filters, rows, max_staleness_seconds, deadline, use)
    if reader is not None and method.field_names:
        fields = await reader.fields(method.field_names, rows, max_staleness_seconds, deadline, use)
    weights: dict[str, Scores] = {}
    remaining = iter(passing)
    is_skipped = fields is None
    for rule in recipe.weights:
        flags: Flags | bool | None
        if rule.items is not None:
            flags = next(remaining)
        elif rule.request is not None:
            flags = circumstances.hold(rule.request)
        else:
            flags = None if fields is None else _mixed(rule, ranking, circumstances, fields)
        if flags is None:
            is_skipped = True
        elif flags is True:
            weights[rule.name] = np.full(len(rows), rule.weight, np.float32)
        elif flags is not False:
            weights[rule.name] = np.where(flags, np.float32(rule.weight), _UNCHANGED)
    missing: Sequence[Values] = [()] * len(rows)
    values = {cap.name: missing if fields is None else fields[cap.field.name] for cap in recipe.caps}
    return Ruled(weights=weights, values=values, is_skipped=is_skipped)


def _mixed(
    rule: WeightRule, ranking: Ranking, circumstances: Circumstances, fields: Mapping[str, Sequence[Values]]
) -> Flags:
    """Return for which candidates a condition over item and request holds: evaluated for each of them."""
    condition = rule.mixed
    if condition is None:
        return np.zeros(len(ranking.rows), np.bool_)
    columns: list[tuple[str, Sequence[object]]] = [
        (ITEM_PREFIX + field.name, fields[field.name]) for field in rule.mixed_fields
    ]
    columns += _of_vectors(condition, ranking)
    names = [name for name, _ in columns]
    known = dict(circumstances.values)
    held = []
    for of_candidate in zip(*(values for _, values in columns), strict=True):
        known.update(zip(names, of_candidate, strict=True))
        held.append(condition.evaluate(known) is True)
    return np.array(held, np.bool_)


def _of_vectors(condition: Expression, ranking: Ranking) -> list[tuple[str, Sequence[object]]]:
    """Return what ``condition`` reads of each candidate's score and vector, where there is something to read."""
    items, rows, vectors = ranking.items, ranking.rows, ranking.vectors
    user = None if vectors.affinity is None else vectors.affinity[:-1]
    found: list[tuple[str, Sequence[object]]] = [(SCORE, ranking.scores.tolist())]
    for name, vector in ((USER_ITEM, user), (CONTEXT_ITEM, vectors.likeness)):
        if vector is not None and name in condition.names:
            found.append((name, cosines(items, rows, vector).tolist() or [None] * len(rows)))
    return found
