"""Answers under a filter not known yet: candidates are found first, and the catalogue says which of them pass."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from pyroaring import BitMap

from annserve.domain.catalog import CatalogStore, Metadata
from annserve.domain.deadline import Deadline
from annserve.domain.filter import Filter
from annserve.domain.query import CatalogUse, Mode, Query, SearchPath
from annserve.engine.blend import candidate_depth
from annserve.engine.filters import Resolved
from annserve.engine.knowledge import Knowledge
from annserve.engine.merged_look_ups import IDS_MAX, MergedLookUps
from annserve.engine.ranking import Ranking
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.search.index import SearchResult
from annserve.search.restriction import Restriction

ROUNDS_MAX = 3
CHECKED_MAX = IDS_MAX
"""How many candidates of one space a round checks."""

_FIRST_DEPTH = {Mode.SIMILAR: 20, Mode.PERSONALIZE: 20, Mode.RELATED: 4}
"""How many candidates for each that is needed the first round checks: that many are enough when one in ten passes,
or for Related, which needs a hundred in each space, one in three."""
_MARGIN = 1.5


class CandidateCheck:
    """Checks candidates, in rounds that go deeper as fewer pass."""

    def __init__(
        self,
        recommender: SnapshotRecommender,
        workbench: Workbench,
        store: CatalogStore,
    ) -> None:
        self._recommender = recommender
        self._workbench = workbench
        self._store = store
        self._fresh = recommender.fresh
        self._look_ups: dict[tuple[Filter | None, bool], MergedLookUps] = {}

    async def rank(
        self,
        query: Query,
        resolved: Resolved,
        knowledge: Knowledge,
        use: CatalogUse,
        deadline: Deadline,
        is_over: Callable[[], bool] = lambda: False,
    ) -> Ranking | None:
        """Return the rows of the answer, and the metadata that was read on the way; None when too few candidates pass.

        ``is_over`` says between two rounds that nobody waits for it any more.

        Raises:
            CatalogUnavailableError, DeadlineExceededError: the store does not answer, or not in time.
        """
        needed = candidate_depth(query.options.k) if query.mode is Mode.RELATED else query.options.k
        depth = min(needed * _FIRST_DEPTH[query.mode], CHECKED_MAX)
        started = time.monotonic()
        passing, failing = BitMap(), BitMap()
        checked: dict[str, Metadata] = {}
        for _ in range(ROUNDS_MAX):
            if is_over():
                return None
            found = await self._candidates(query, depth, knowledge, deadline)
            lists = [one.rows for one in found]
            everything = BitMap(np.concatenate(lists).astype(np.uint32))
            unknown = everything - resolved.certain - passing - failing
            await self._look_up(query, unknown, passing, failing, checked, use, deadline)
            kept = passing | (everything & resolved.certain)
            counts = [sum(row in kept for row in rows.tolist()) for rows in lists]
            if all(count >= needed or len(rows) < depth for count, rows in zip(counts, lists, strict=True)):
                allowed = Restriction.over(kept, self._fresh.items.row_count)
                ranking = self._recommender.rank(query, deadline, replace(knowledge, allowed=allowed))
                path = SearchPath.HNSW if any(one.path is SearchPath.HNSW for one in found) else SearchPath.EXACT
                # What was known before the check had a part in it too, and is older.
                ranking.catalog_age_seconds = max(time.monotonic() - started, resolved.age_seconds or 0.0)
                ranking.selectivity, ranking.search_path, ranking.checked = None, path, checked
                return ranking
            share = max(min(counts), 0.5) / depth
            deeper = min(math.ceil(_MARGIN * needed / share), CHECKED_MAX)
            if deeper <= depth:
                break
            depth = deeper
        return None

    async def _candidates(
        self, query: Query, depth: int, knowledge: Knowledge, deadline: Deadline
    ) -> Sequence[SearchResult]:
        estimated_us = self._recommender.estimated_us(query, knowledge, depth)
        return await self._workbench.run(
            estimated_us,
            lambda fallback_us: self._recommender.candidates(
                query, depth, deadline, knowledge, fallback_us_max=fallback_us
            ),
            deadline,
        )

    async def _look_up(
        self,
        query: Query,
        unknown: BitMap,
        passing: BitMap,
        failing: BitMap,
        checked: dict[str, Metadata],
        use: CatalogUse,
        deadline: Deadline,
    ) -> None:
        """Sort the ``unknown`` rows into those ``passing`` and those ``failing``."""
        rows = list(unknown)
        look_ups = self.look_ups_of(query.options.filter, reads_metadata=bool(query.options.read_mask))
        use.candidate_rounds += 1
        use.candidates_checked += len(rows)
        for start in range(0, len(rows), CHECKED_MAX):
            part = rows[start : start + CHECKED_MAX]
            ids = self._fresh.items.ids(np.array(part, np.int64))
            use.database_calls += 1
            found = (await look_ups.find(ids, deadline)).metadata
            checked.update(found)
            passed = BitMap(row for row, item_id in zip(part, ids, strict=True) if item_id in found)
            passing |= passed
            failing |= BitMap(part) - passed

    def look_ups_of(self, filter_: Filter | None, *, reads_metadata: bool) -> MergedLookUps:
        """Return those that check ``filter_``, and read metadata or not."""
        key = filter_, reads_metadata
        look_ups = self._look_ups.get(key)
        if look_ups is None:
            self._look_ups = {known: one for known, one in self._look_ups.items() if not one.idle}
            fields = tuple(self._store.schema.fields.values()) if reads_metadata else ()
            look_ups = self._look_ups[key] = MergedLookUps(self._store, filter_, fields)
        return look_ups
