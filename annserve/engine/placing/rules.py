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
from annserve.engine.placing.mixed import MixedConditions
from annserve.engine.ranking import Ranking
from annserve.placements.recipe import WeightRule

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
    known = {filter_: flags for filter_, flags in zip(method.item_filters, passing, strict=True) if flags is not None}
    mixed = MixedConditions(ranking, circumstances, known, fields or {})
    weights: dict[str, Scores] = {}
    is_skipped = fields is None
    for rule, needs in zip(recipe.weights, method.needs, strict=True):
        flags: Flags | bool | None = None
        if rule.request is not None:
            flags = circumstances.hold(rule.request)
        elif all(filter_ in known for filter_ in needs.filters) and (fields is not None or not needs.field_names):
            flags = known[rule.items] if rule.items is not None else _mixed(rule, mixed)
        if flags is None:
            is_skipped = True
        elif flags is True:
            weights[rule.name] = np.full(len(rows), rule.weight, np.float32)
        elif flags is not False:
            weights[rule.name] = np.where(flags, np.float32(rule.weight), _UNCHANGED)
    missing: Sequence[Values] = [()] * len(rows)
    values = {cap.name: missing if fields is None else fields[cap.field.name] for cap in recipe.caps}
    return Ruled(weights=weights, values=values, is_skipped=is_skipped)


def _mixed(rule: WeightRule, mixed: MixedConditions) -> Flags | bool:
    return False if rule.parts is None else mixed.flags(rule.parts)
