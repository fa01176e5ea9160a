"""Placements, and expressions, made by hand: what files are compiled to, without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from annserve.domain.errors import InvalidArgumentError
from annserve.domain.query import Mode
from annserve.placements.recipe import ContextField, ExpressionValue, Placement, PlacementSet, PolicyRow, Recipe


class TwinExpression:
    """Gives what ``work`` makes of the variables, in their order; None when one is missing."""

    def __init__(self, work: Callable[..., ExpressionValue], *names: str) -> None:
        self._work = work
        self.names = frozenset(names)
        self.text = " ".join(names)
        self._order = names
        self.evaluated_count = 0

    def evaluate(self, values: Mapping[str, object]) -> ExpressionValue | None:
        self.evaluated_count += 1
        found = [_plain(values.get(name)) for name in self._order]
        return None if None in found else self._work(*found)


def _plain(value: object) -> object:
    """Return a field's value, which metadata has as a tuple."""
    return next(iter(value), None) if isinstance(value, tuple) else value


@dataclass(kw_only=True)
class TwinPlacement:
    """Gives each unit the recipe of the variant that ``assign`` names, the first one's unless told."""

    recipes: Mapping[str, Recipe]
    time_zone: str = "UTC"
    context: Mapping[str, ContextField] = field(default_factory=dict)
    assign: Callable[[str], str] | None = None

    @property
    def name(self) -> str:
        return next(iter(self.recipes.values())).name

    @property
    def version(self) -> str:
        return next(iter(self.recipes.values())).version

    @property
    def experiment(self) -> str:
        return next(iter(self.recipes.values())).experiment

    def recipe(self, unit: str | None, forced_variant: str | None = None) -> Recipe:
        if forced_variant is not None and forced_variant not in self.recipes:
            raise InvalidArgumentError.of("forced_variants", f"there is no variant {forced_variant!r}")
        first = next(iter(self.recipes))
        assigned = first if unit is None or self.assign is None else self.assign(unit)
        return self.recipes[forced_variant or assigned]


def recipe(name: str = "home", mode: Mode | None = Mode.SIMILAR, **fields: Any) -> Recipe:
    """Return a recipe that asks ``mode``, whatever the circumstances, unless it has a policy of its own."""
    fields.setdefault("policy", (PolicyRow(when=None, mode=mode),))
    return Recipe(**{"name": name, "version": "0123456789abcdef", **fields})


def placement(one: Recipe, **fields: Any) -> TwinPlacement:
    return TwinPlacement(recipes={one.variant: one}, **fields)


def experiment(name: str, recipes: Mapping[str, Recipe], assign: Callable[[str], str]) -> TwinPlacement:
    """Return a placement that takes part in an experiment."""
    variants = {key: replace(one, experiment=name, variant=key) for key, one in recipes.items()}
    return TwinPlacement(recipes=variants, assign=assign)


class TwinPlacements:
    """The placements of now, which a test may replace."""

    def __init__(self, *placements: Placement) -> None:
        self.show(*placements)

    def show(self, *placements: Placement) -> None:
        self._now = PlacementSet(placements={one.name: one for one in placements})

    def __call__(self) -> PlacementSet:
        return self._now
