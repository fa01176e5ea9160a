"""The choice between graph and exact search: the cheapest of those that keep the recall promise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from annserve.domain.arrays import Scores
from annserve.search.bands import TUNED_DEPTH, Bands, Level
from annserve.search.cost import CostModel
from annserve.search.restriction import Restriction, Selection

_PLANS_KEPT = 4096
_ROWS_SAMPLED = 8192


class Planner:
    """Plans searches of one space. Thread-safe: what it remembers is only ever replaced by the same."""

    def __init__(self, *, norms: Scores, bands: Bands, cost: CostModel, ef_search: int, recall_target: float) -> None:
        """Prepare for a space whose rows have ``norms`` and whose graph has ``bands`` and ``ef_search``."""
        self._cost = cost
        self._count = len(norms)
        self._recall_target = recall_target
        self._band_of_row = bands.of(norms)
        self._band_count = len(bands.edges) + 1
        self._band_sizes = np.bincount(self._band_of_row, minlength=self._band_count)
        self._levels = sorted(bands.levels, key=lambda level: (level.ef_search, -level.depth))
        self._reaches = np.array([level.reach for level in self._levels])
        self._hit_shares = np.array([level.hit_shares for level in self._levels])
        self._found_shares = self._hit_shares * np.array([level.recalls for level in self._levels])
        # What the build tuned the graph for needs no second opinion.
        self._tuned = Level(depth=TUNED_DEPTH, ef_search=ef_search, hit_shares=(1.0,), recalls=(recall_target,))
        self._everything = Selection(kept_shares=np.ones(self._band_count))
        self._open_levels = lru_cache(maxsize=_PLANS_KEPT)(self._uncached_open_levels)

    def selection(self, restriction: Restriction | None) -> Selection:
        """Return what is known about a restriction in this space, found out at first use."""
        if restriction is None:
            return self._everything
        known = restriction.selections.get(self)
        if known is None:
            known = restriction.selections[self] = Selection(kept_shares=self._kept_shares(restriction))
        return known

    def levels(
        self, k: int, restriction: Restriction | None, excluded_count: int, ef_search: int = 0
    ) -> Sequence[Level]:
        """Return the levels to try until one leaves ``k`` rows; after the last, exact search is cheaper or safer.

        Excluded rows may all rank above the first that may be returned, but seldom do. So the first level hopes
        that only some do, the second allows for all: twice, since the ranks behind them are recalled about as well
        as all ranks down to twice that depth.

        Lists are no shorter than ``ef_search``, and are judged by what they cost at that length.
        """
        if restriction is None:
            return self._open_levels(k, excluded_count, ef_search)
        # Asked twice for each question: for its estimate, and for the search.
        selection = self.selection(restriction)
        asked = k, excluded_count, ef_search, selection.gathered is not None
        levels = selection.plans.get(asked)
        if levels is None:
            levels = self._levels_of(k, selection, excluded_count, ef_search, self.exact_us(restriction))
            if len(selection.plans) < _PLANS_KEPT:
                selection.plans[asked] = levels
        return levels

    def worst_us(self, k: int, restriction: Restriction | None, excluded_count: int, ef_search: int) -> float:
        """Return what every attempt costs together, and exact search where it is likely to come after them.

        Under a restriction it seldom does: `SpaceIndex.search` can be told not to begin it then.
        """
        levels = self.levels(k, restriction, excluded_count, ef_search)
        is_open = restriction is None and not excluded_count
        attempts_us = sum(self._attempt_us(level, k, is_open, ef_search) for level in levels)
        # Without a restriction, a level this deep is filled even when all the excluded rows come first.
        is_filled = restriction is not None or is_open or (bool(levels) and levels[-1].reach >= k + 2 * excluded_count)
        return attempts_us if levels and is_filled else attempts_us + self.exact_us(restriction)

    def scan_us(self, rows: int) -> float:
        """Return what scoring and ranking adjacent ``rows`` costs, in microseconds."""
        return self._cost.scan(rows)

    def exact_us(self, restriction: Restriction | None) -> float:
        """Return what exact search costs, in microseconds, by the cheaper of its two ways."""
        everything = self._cost.scan(self._count)
        if restriction is None:
            return everything
        if self.selection(restriction).gathered is not None:
            return self._cost.scan(len(restriction))
        return min(everything, self._cost.gather(len(restriction)))

    def gathers(self, restriction: Restriction) -> bool:
        """Return whether scoring the allowed rows alone beats scoring all and striking the others."""
        gathered = self.selection(restriction).gathered is not None
        return gathered or self._cost.gather(len(restriction)) < self._cost.scan(self._count)

    def _uncached_open_levels(self, k: int, excluded_count: int, ef_search: int) -> Sequence[Level]:
        return self._levels_of(k, self._everything, excluded_count, ef_search, self.exact_us(None))

    def _levels_of(
        self, k: int, selection: Selection, excluded_count: int, ef_search: int, exact_us: float
    ) -> Sequence[Level]:
        levels: list[Level] = []
        is_open = selection is self._everything and not excluded_count
        depths = [k + min(excluded_count, k), k + 2 * excluded_count]
        if selection is not self._everything:
            # A few queries in a hundred find too few among what is left. Looking deeper costs less than a scan.
            depths.append(3 * k + 2 * excluded_count)
        for needed in depths:
            level = self._level(needed, selection)
            if level is None or self._attempt_us(level, k, is_open, ef_search) >= exact_us:
                break
            if level not in levels:
                levels.append(level)
        return tuple(levels)

    def _attempt_us(self, level: Level, k: int, is_open: bool, ef_search: int) -> float:
        depth = k if is_open else min(level.reach, self._count)
        return self._cost.graph(min(max(level.ef_search, ef_search), self._count), depth)

    def _level(self, needed: int, selection: Selection) -> Level | None:
        if selection is self._everything and needed <= self._tuned.reach:
            return self._tuned
        if needed not in selection.levels:
            selection.levels[needed] = self._cheapest_level(needed, selection.kept_shares)
        return selection.levels[needed]

    def _cheapest_level(self, needed: int, kept_shares: npt.NDArray[np.float64]) -> Level | None:
        """Return the level with the shortest list that leaves ``needed`` survivors at the recall promised."""
        if not self._levels:
            return None
        kept = self._hit_shares @ kept_shares
        expected = self._reaches * kept
        # Two standard deviations of a binomial count: nearly every query is filled at the first attempt.
        enough = expected - 2 * np.sqrt(expected * np.maximum(1 - kept, 0)) >= needed
        recalled = self._found_shares @ kept_shares >= self._recall_target * kept
        fitting = np.flatnonzero(enough & recalled)
        return self._levels[fitting[0]] if len(fitting) else None

    def _kept_shares(self, restriction: Restriction) -> npt.NDArray[np.float64]:
        sample = restriction.rows[:: max(1, len(restriction) // _ROWS_SAMPLED)]
        counts = np.bincount(self._band_of_row[sample], minlength=self._band_count)
        kept = counts * (len(restriction) / max(len(sample), 1)) / np.maximum(self._band_sizes, 1)
        return np.minimum(kept, 1.0)
