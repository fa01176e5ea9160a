"""What recipes did on a sample: which are promising, and when denser ones are not worth building a graph for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from operator import itemgetter

from annserve.search.recipe import Recipe, Reduction

_FAR = 0.1
"""A recall so far below the target that more links, which cost more, do not make up for it: not at the cost of a scan,
nor where another recipe meets the target."""
_SHORT_LIST = 128
"""A search list short enough that recipes with more links are not tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One recipe tried. Every field is a JSON value."""

    reduction: Reduction
    m: int
    ef_construction: int
    ef_search: int
    point_count: int
    recall: float
    """Mean recall@10 against exact search."""
    query_us: float
    """Microseconds of CPU time a query, in a batch."""


@dataclass(slots=True, kw_only=True, eq=False)
class TriedRecipes:
    """The recipes tried on a sample, and which of the rest are worth building a graph for."""

    target: float
    scan_us: float
    """What a graph may take that a scan would stand in for; infinite where none may."""
    met: list[tuple[bool, float, Recipe]] = field(default_factory=list)
    """Those that met the target: whether they are shallow, and what a query took."""
    missed: list[tuple[float, Recipe]] = field(default_factory=list)
    hopeless: set[Reduction] = field(default_factory=set)
    """Those of which no denser graph is tried."""
    fastest_us: float = math.inf
    """Of those that met the target and are not shallow."""
    _far: set[Reduction] = field(default_factory=set)

    @property
    def slowest_us(self) -> float:
        """What a query may take for a recipe to be taken."""
        return min(self.fastest_us, self.scan_us)

    def add(self, recipe: Recipe, trial: Trial, *, is_shallow: bool) -> None:
        """Note how a recipe did with the longest list it was given."""
        if trial.recall >= self.target:
            self.met.append((is_shallow, trial.query_us, recipe))
            if not is_shallow:
                self.fastest_us = min(self.fastest_us, trial.query_us)
            return
        self.missed.append((-trial.recall, recipe))
        if trial.recall < self.target - _FAR:
            self._far.add(recipe.reduction)
            if trial.query_us > self.scan_us:
                self.hopeless.add(recipe.reduction)

    def is_settled(self, sparser_us: float) -> bool:
        """Return whether denser graphs need not be built, the fastest having taken ``sparser_us`` before these."""
        deep = [recipe for shallow, _, recipe in self.met if not shallow]
        if not deep:
            return False
        # What is far from the target where another recipe meets it is not the one that more links make the best.
        self.hopeless |= self._far
        # More links cost memory, and time to build; they are for points that need long lists, and while they help.
        return any(recipe.ef_search <= _SHORT_LIST for recipe in deep) or self.fastest_us == sparser_us

    def ranked(self) -> tuple[list[Recipe], list[Recipe]]:
        """Return the recipes that met the target, the best ones first, and the others by recall."""
        by_speed = [(shallow, recipe) for shallow, _, recipe in sorted(self.met, key=itemgetter(1))]
        deep = [recipe for shallow, recipe in by_speed if not shallow]
        others = [recipe for shallow, recipe in by_speed if shallow]
        ordered = deep[:1] + others[:1] + deep[1:] + others[1:]
        return ordered, [recipe for _, recipe in sorted(self.missed, key=itemgetter(0))]
