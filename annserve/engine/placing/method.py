"""What following a recipe takes, worked out once for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cachetools import LRUCache

from annserve.domain.filter import Filter
from annserve.placements.parts import OfItems, fields_of, singles_of
from annserve.placements.recipe import Expression, FallbackKind, Recipe, WeightRule
from annserve.placements.variables import CONTEXT_KNOWN, USER_CONTEXT, USER_KNOWN

_RECIPES_KEPT = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one rule reads of the catalogue."""

    filters: tuple[Filter, ...]
    """The conditions over item fields alone that it is, or is made of."""
    field_names: tuple[str, ...]
    """The fields of candidates that it reads besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What a recipe reads and needs."""

    recipe: Recipe
    reads_vectors: bool
    """Whether the vectors of user and context have to be known before anything is asked."""
    needs: tuple[Needs, ...]
    """Of each weight, in the order of the recipe."""
    item_filters: tuple[Filter, ...]
    """Those of all weights, each once."""
    field_names: tuple[str, ...]
    """The fields of candidates that caps count and mixed rules read."""
    orders_anew: bool
    """Whether rules may put candidates in another order."""
    keeps_pages: bool
    """Whether equal circumstances lead to the same order."""
    request_conditions: tuple[Expression, ...]
    """Those of weights that read the request alone."""
    mixed_names: tuple[str, ...]
    """All that mixed conditions read, of the request or the candidate."""
    fallback_placements: tuple[str, ...]


class Methods:
    """Keeps what was worked out, by recipe."""

    def __init__(self) -> None:
        self._kept: LRUCache[int, Method] = LRUCache(_RECIPES_KEPT)

    def of(self, recipe: Recipe) -> Method:
        """Return what following ``recipe`` takes."""
        # By identity: comparing recipes would cost more than working it out.
        found = self._kept.get(id(recipe))
        if found is None or found.recipe is not recipe:
            found = self._kept[id(recipe)] = _method_of(recipe)
        return found


def _method_of(recipe: Recipe) -> Method:
    names = frozenset(name for expression in _expressions(recipe) for name in expression.names)
    needs = tuple(map(_needs_of, recipe.weights))
    fields = {name for one in needs for name in one.field_names}
    return Method(
        recipe=recipe,
        reads_vectors=recipe.reads_similarity or bool(names & {USER_KNOWN, CONTEXT_KNOWN, USER_CONTEXT}),
        needs=needs,
        item_filters=tuple(dict.fromkeys(filter_ for one in needs for filter_ in one.filters)),
        field_names=tuple(sorted(fields | {cap.field.name for cap in recipe.caps})),
        orders_anew=bool(
            recipe.weights
            or recipe.diversity
            or recipe.caps
            or recipe.pins
            or recipe.rotation
            or recipe.exploration_share
        ),
        # Pins are sought beside the candidates, and by conditions of their own.
        keeps_pages=not (recipe.pins or recipe.rotation or recipe.exploration_share),
        request_conditions=tuple(rule.request for rule in recipe.weights if rule.request is not None),
        mixed_names=tuple(sorted({name for rule in recipe.weights if rule.mixed for name in rule.mixed.names})),
        fallback_placements=tuple(step.placement for step in recipe.fallbacks if step.kind is FallbackKind.PLACEMENT),
    )


def _needs_of(rule: WeightRule) -> Needs:
    if rule.parts is None:
        return Needs(filters=() if rule.items is None else (rule.items,), field_names=())
    filters = [single.filter for single in singles_of(rule.parts) if isinstance(single, OfItems)]
    return Needs(filters=tuple(filters), field_names=tuple(field.name for field in fields_of(rule.parts)))


def _expressions(recipe: Recipe) -> Iterator[Expression]:
    for row in recipe.policy:
        if row.when is not None:
            yield row.when
        if not isinstance(row.user_impact, int | float):
            yield row.user_impact
    for rule in recipe.weights:
        yield from (one for one in (rule.request, rule.mixed) if one is not None)
    yield from (pin.when for pin in recipe.pins if pin.when is not None)
