"""A placement that nothing is wrong with: the recipes of its variants, and who gets which."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from annserve.domain.errors import InvalidArgumentError
from annserve.placements.assignment import Assignment
from annserve.placements.file import PlacementFile
from annserve.placements.problems import Place
from annserve.placements.recipe import ContextField, Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledPlacement:
    """Implements `recipe.Placement`."""

    name: str
    version: str
    time_zone: str
    context: Mapping[str, ContextField]
    experiment: str
    recipes: Mapping[str, Recipe]
    """By variant; of one without a name where there is no experiment."""
    file: PlacementFile
    assignment: Assignment | None
    calls: Mapping[str, Place]
    """The placements that it falls back to, and where it says so."""

    def recipe(self, unit: str | None, forced_variant: str | None = None) -> Recipe:
        """Return the recipe of the variant that ``unit`` is assigned to; the first one's for None."""
        if forced_variant is not None:
            if forced_variant not in self.recipes or self.assignment is None:
                known = ", ".join(self.recipes) if self.assignment is not None else "none"
                raise InvalidArgumentError.of(
                    "forced_variants", f"there is no variant {forced_variant[:64]!r}; there are {known}"
                )
            return self.recipes[forced_variant]
        if unit is None or self.assignment is None:
            return next(iter(self.recipes.values()))
        return self.recipes[self.assignment.variant_of(unit)]


def version_of(text: str) -> str:
    """Return what names this content: 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
