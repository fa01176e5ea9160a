"""Candidates that were ranked for an equal question: what depends on the seeds and the catalogue, and not on the user.

Requests to a placement differ in their user, circumstances and variant, and so do their answers; the candidates behind
them are the same. What makes them others is in `domain.ports.Basis`: the versions of the filter's leaves, and of items.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final, Protocol

from cachetools import LRUCache

from annserve.domain.deadline import Deadline
from annserve.domain.ports import Basis
from annserve.domain.query import CatalogUse, Mode, Query
from annserve.engine.live_items import LiveItems
from annserve.engine.ranking import NO_EXCLUSIONS, Exclusions, Ranking
from annserve.engine.unit_vectors import KeptUnitVectors

RANKINGS_KEPT: Final = 1_024
"""Of 200 rows, each takes some 5 KiB."""

VECTORS_KEPT: Final = 128
"""Of rankings asked for again, for diversity to compare: at 64 dimensions 50 KiB each."""


class RankingSource(Protocol):
    """Ranks, and says what rankings rest on; the recommenders with and without a catalogue do."""

    def basis(self, query: Query) -> Basis | None:
        """Return what an answer rests on; see `domain.ports.Recommender.basis`."""
        ...

    async def rank(self, query: Query, deadline: Deadline, exclusions: Exclusions) -> Ranking:
        """Return the best rows; see `engine.ranking.Ranker.rank`."""
        ...


class KeptRankings:
    """Ranks by ``source`` what it has not ranked lately. One event loop uses it."""

    def __init__(self, source: RankingSource) -> None:
        self._source = source
        self._items: LiveItems | None = None
        self._forget()

    async def rank(self, query: Query, deadline: Deadline, exclusions: Exclusions) -> Ranking:
        """Return the best rows, as `engine.ranking.Ranker.rank` does; the ranking is the caller's, its arrays are not.

        An explanation tells of a search, so a question that wants one is always ranked anew.
        """
        key = _key_of(query) if exclusions is NO_EXCLUSIONS else None
        basis = None if key is None else self._source.basis(query)
        if basis is None:
            return await self._source.rank(query, deadline, exclusions)
        kept = self._kept.get(key)
        if kept is not None and kept[0] == basis.versions:
            return _again(kept[1], basis, self._units_of(key, kept[1]))
        ranking = await self._source.rank(query, deadline, exclusions)
        now = self._source.basis(query)
        # What changed meanwhile may have been counted, or not.
        if now is not None and now.versions == basis.versions and not ranking.degradations and not ranking.checked:
            for array in (ranking.rows, ranking.scores):
                array.setflags(write=False)
            if ranking.items is not self._items:
                # All that is kept is false, and would hold on to items as they were.
                self._items = ranking.items
                self._forget()
            # Not what was allowed: it is of the catalogue's size, and others of it follow with every change.
            eligibility = replace(ranking.eligibility, restriction=None)
            ranking.is_kept = True
            self._kept[key] = basis.versions, replace(ranking, eligibility=eligibility)
        return ranking

    def _forget(self) -> None:
        self._kept: LRUCache[Hashable, tuple[tuple[int, ...], Ranking]] = LRUCache(RANKINGS_KEPT)
        self._units: LRUCache[Hashable, KeptUnitVectors] = LRUCache(VECTORS_KEPT)

    def _units_of(self, key: Hashable, kept: Ranking) -> KeptUnitVectors:
        units = self._units.get(key)
        if units is None or units.rows is not kept.rows:
            units = self._units[key] = KeptUnitVectors(kept.items, kept.rows)
        return units


def _key_of(query: Query) -> Hashable | None:
    """Return what two questions share that have the same candidates; None where they are not kept."""
    options = query.options
    if (
        query.mode is not Mode.SIMILAR
        or options.explain
        or options.bypass_cache
        or options.max_staleness_seconds == 0.0
        or options.exclude_item_ids
        or options.candidate_item_ids is not None
    ):
        return None
    return query.item_ids, options.k, options.filter, options.ef_search, options.exact, options.strict


def _again(kept: Ranking, basis: Basis, units: KeptUnitVectors) -> Ranking:
    # Written out: `replace` takes several times as long.
    return Ranking(
        snapshot_id=kept.snapshot_id,
        items=kept.items,
        rows=kept.rows,
        scores=kept.scores,
        source=kept.source,
        search_path=kept.search_path,
        selectivity=kept.selectivity,
        vectors=kept.vectors,
        eligibility=kept.eligibility,
        user_impact=kept.user_impact,
        stage_us=(),
        catalog_age_seconds=basis.age_seconds,
        catalog_use=None if kept.catalog_use is None else CatalogUse(),
        is_kept=True,
        units=units,
    )
