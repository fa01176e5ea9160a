"""One request of one placement: the recipe of its variant, and the options of both joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from annserve.domain.errors import UnknownPlacementError
from annserve.domain.query import Options, Placed, Query
from annserve.engine.placing.circumstances import check_context, is_declared
from annserve.engine.placing.method import Method, Methods
from annserve.engine.placing.question import options_of
from annserve.placements.recipe import Placement, PlacementSet, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a placement is asked, and the recipe that answers."""

    query: Query
    placed: Placed
    placement: Placement
    method: Method
    size: int
    """How many items to show."""
    options: Options
    """How it is asked, and for how many candidates."""

    @property
    def recipe(self) -> Recipe:
        """What to do."""
        return self.method.recipe


class Occasions:
    """Finds what requests are asked of the placements that there are now."""

    def __init__(self, placements: Callable[[], PlacementSet]) -> None:
        self._placements = placements
        self._methods = Methods()

    def of(self, query: Query, placed: Placed) -> Occasion:
        """Return what ``query`` asks, being ``placed``.

        Raises:
            UnknownPlacementError: there is no such placement.
            InstanceUnavailableError: it is not known yet which there are.
            InvalidArgumentError: its context is not what the placement declares, or a variant is forced that is not.
        """
        placement = self._placement(placed.placement)
        check_context(placement, placed.context)
        return self._occasion(query, placed, placement)

    def of_other(self, occasion: Occasion, name: str, page_size: int) -> Occasion:
        """Return what ``occasion`` asks of another placement that is to help out; raises as `of`."""
        placement = self._placement(name)
        context = {
            name: value for name, value in occasion.placed.context.items() if is_declared(placement, name, value)
        }
        placed = replace(occasion.placed, placement=placement.name, context=context, page_size=page_size)
        other = self._occasion(occasion.query, placed, placement)
        return replace(other, options=replace(other.options, strict=False))

    def _placement(self, name: str) -> Placement:
        known = self._placements()
        placement = known.placements.get(name)
        if placement is None:
            raise UnknownPlacementError(name, known.names)
        return placement

    def _occasion(self, query: Query, placed: Placed, placement: Placement) -> Occasion:
        unit = placed.experiment_unit or query.user_id
        forced = placed.forced_variants.get(placement.experiment) if placed.forced_variants else None
        recipe = placement.recipe(unit, forced)
        method = self._methods.of(recipe)
        size = recipe.limit if placed.page_size is None else placed.page_size
        return Occasion(
            query=query,
            placed=placed,
            placement=placement,
            method=method,
            size=size,
            options=options_of(recipe, query, placed, max(recipe.candidates, size) if method.orders_anew else size),
        )
