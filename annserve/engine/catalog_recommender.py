"""Recommendations under the catalogue: filters, histories and metadata around the snapshot's own answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache, LeafBitmap
from annserve.cache.shared import SharedCache
from annserve.domain.arrays import Rows
from annserve.domain.catalog import CatalogStore, Metadata, Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import AnnserveError, CatalogUnavailableError, DeadlineExceededError, FieldNotIndexedError
from annserve.domain.filter import Filter, Leaf
from annserve.domain.ports import Basis
from annserve.domain.query import Answer, CatalogUse, Degradation, Mode, Query
from annserve.engine.candidate_check import CandidateCheck
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.filters import Filters, LeafBuilder, Resolved
from annserve.engine.histories import NO_HISTORY, HistoryReader, HistorySource, UserHistory
from annserve.engine.knowledge import Knowledge
from annserve.engine.metadata import MetadataReader, chosen
from annserve.engine.placing.candidate_fields import CandidateFields
from annserve.engine.placing.candidate_reader import CandidateReader
from annserve.engine.query_vectors import QueryVectors
from annserve.engine.ranking import NO_EXCLUSIONS, Exclusions, Ranking, answer_of
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.stopwatch import Stopwatch
from annserve.engine.user_changes import UserChanges
from annserve.engine.workbench import Workbench
from annserve.search.restriction import Restriction

METADATA_CHARACTERS_MAX = 400_000
"""How much text an answer brings with it; at up to four bytes each they fit in a message."""


class CatalogRecommender:
    """Implements `domain.ports.Recommender` for a server with a catalogue. One event loop uses it."""

    def __init__(
        self,
        recommender: SnapshotRecommender,
        workbench: Workbench,
        store: CatalogStore,
        bitmaps: BitmapCache,
        builder: LeafBuilder,
        metadata: MetadataReader,
        settings: CatalogSettings,
        cache: SharedCache | None = None,
        histories: HistorySource | None = None,
        changes: UserChanges | None = None,
    ) -> None:
        """Join the snapshot's ``recommender`` with the catalogue's ``store``.

        Args:
            recommender: Answers from the snapshot.
            workbench: Where it works.
            store: The catalogue.
            bitmaps: What is kept of it by leaf; written by ``builder``.
            builder: Reads leaves that are missing.
            metadata: Reads and keeps items' metadata; to be told of changes by whoever follows them.
            settings: How to read.
            cache: Shares histories with other workers.
            histories: What users did; as ``store`` has it, unless given.
            changes: What makes a history that was read false.
        """
        self._recommender = recommender
        self._workbench = workbench
        self._store = store
        self._bitmaps = bitmaps
        self._builder = builder
        self._settings = settings
        snapshot = recommender.snapshot
        self._created_ms = snapshot.manifest.created_time.timestamp() * 1e3
        self._fresh = recommender.fresh
        self._filters = Filters(bitmaps, len(snapshot.items), self._holds_all)
        self._histories = HistoryReader(
            histories or store, self._fresh, settings, cache, changes, recommender.users.erased
        )
        self._metadata_reader = metadata
        self._check = CandidateCheck(recommender, workbench, store)
        fields = CandidateFields(metadata, bitmaps, self._fresh, settings.metadata_ttl_seconds)
        self.candidates = CandidateReader(self._filters, builder, self._check, fields, self._fresh, settings)
        """What the rules of placements read."""
        self.used = CatalogUse()
        """What all answers so far took of the catalogue."""

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        return self._recommender.snapshot.id

    @property
    def schema(self) -> Schema:
        """The declared fields that filters may test."""
        return self._store.schema

    def basis(self, query: Query) -> Basis | None:
        """Return what an answer rests on now, without waiting for any of it; see `domain.ports.Recommender.basis`."""
        max_staleness_seconds = self._max_staleness_seconds(query)
        known = self._filters.versions(query.options.filter, max_staleness_seconds)
        if known is None:
            return None
        versions, age_seconds = known
        versions = (*versions, *self._fresh.items.versions, *self._recommender.users.versions(query.user_id))
        bitmaps = self._bitmaps
        if not query.options.read_mask:
            return None if versions and self._is_stale else Basis(versions=versions, age_seconds=age_seconds)
        # Changes of metadata have no versions: they have to arrive, and every kept answer is asked about them.
        if self._is_stale or time.monotonic() - bitmaps.synced_at > max_staleness_seconds:
            return None
        return Basis(versions=versions, age_seconds=age_seconds, as_of=bitmaps.synced_at)

    def is_open(self) -> bool:
        """Return whether the catalogue has all items, for certain, so that a question without a filter is not its."""
        return self._bitmaps.present is not None and self._filters.open().possible is None

    def unchanged(self, item_ids: Sequence[str], as_of: float) -> bool:
        """Return whether metadata is unchanged; see `domain.ports.Recommender.unchanged`."""
        return self._metadata_reader.unchanged(item_ids, as_of)

    async def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Answer:
        """Return the answer to ``query``; see `domain.ports.Recommender.recommend` for what it raises."""
        ranking = await self.rank(query, deadline)
        answer = answer_of(ranking, query)
        return await self.described(answer, query, ranking.checked, deadline) if query.options.read_mask else answer

    async def rank(
        self, query: Query, deadline: Deadline = NO_DEADLINE, exclusions: Exclusions = NO_EXCLUSIONS
    ) -> Ranking:
        """Return the rows of the answer; see `engine.ranking.Ranker.rank`."""
        self._recommender.check_pin(query)
        stopwatch = Stopwatch()
        filter_, use = query.options.filter, CatalogUse()
        degradations: list[Degradation] = []
        resolved = self._filters.open() if filter_ is None else self._resolved(filter_, query, use)
        if self._is_stale and (filter_ is not None or resolved.possible is not None or self._bitmaps.present is None):
            degradations.append(Degradation.CATALOG_STALE)
        # The leaves that are not known are read from now on, whoever answers first.
        since = time.monotonic() - self._max_staleness_seconds(query)
        builds = {leaf: self._builder.build(leaf, since) for leaf in resolved.missing} if filter_ is not None else {}
        history = NO_HISTORY
        if query.mode is not Mode.SIMILAR or exclusions.of_history:
            history = await self._history(query, deadline, use, degradations)
        knowledge = _knowledge(resolved.possible, history, exclusions)
        stopwatch.lap("catalog")
        if not builds or filter_ is None:
            ranking = await self._rank(query, knowledge, deadline)
        else:
            ranking = await self._race(query, filter_, resolved, knowledge, builds, since, use, deadline)
        stopwatch.lap("answer")
        self.used.add(use)
        ranking.catalog_use, ranking.degradations = use, degradations
        ranking.stage_us = (stopwatch.laps[0], *ranking.stage_us)
        if ranking.catalog_age_seconds is None:
            ranking.catalog_age_seconds = resolved.age_seconds
        return ranking

    async def vectors(self, query: Query, deadline: Deadline = NO_DEADLINE) -> QueryVectors:
        """Return the vectors of ``query``; see `engine.ranking.Ranker.vectors`."""
        use = CatalogUse()
        history = await self._history(query, deadline, use, [])
        self.used.add(use)
        return self._recommender.vectors_of(query, Knowledge(taste_rows=history.taste_rows))

    async def recent_rows(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> Rows:
        """Return what a user did lately; see `engine.ranking.Ranker.recent_rows`."""
        use = CatalogUse()
        query = Query(mode=Mode.PERSONALIZE, user_id=user_id)
        history = await self._history(query, deadline, use, [], is_whole=True)
        self.used.add(use)
        taste_rows = history.taste_rows[-self._recommender.snapshot.recent_items_max :]
        return taste_rows if taste_rows.size else self._recommender.recent_rows(user_id)

    async def seen_rows(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> Rows:
        """Return what a user has seen; see `engine.ranking.Ranker.seen_rows`."""
        use = CatalogUse()
        history = await self._history(Query(mode=Mode.PERSONALIZE, user_id=user_id), deadline, use, [])
        self.used.add(use)
        return np.concatenate([history.seen_rows, self._recommender.seen_rows(user_id)])

    async def described(
        self, answer: Answer, query: Query, checked: Mapping[str, Metadata], deadline: Deadline
    ) -> Answer:
        """Return ``answer`` with the fields of its `read_mask`; see `engine.ranking.Ranker.described`."""
        if not answer.item_ids:
            return answer
        stopwatch, use, degradations = Stopwatch(), CatalogUse(), list(answer.degradations)
        metadata = await self._metadata(query, answer, checked, deadline, use, degradations)
        stopwatch.lap("metadata")
        self.used.add(use)
        explanation = answer.explanation
        if explanation is not None:
            if explanation.catalog_use is not None:
                use.add(explanation.catalog_use)
            stages = (*explanation.stage_us, *stopwatch.laps)
            explanation = replace(explanation, stage_us=stages, catalog_use=use)
        return replace(answer, metadata=metadata, degradations=tuple(degradations), explanation=explanation)

    def _holds_all(self, rows: BitMap) -> bool:
        return self._fresh.items.all_in(rows)

    @property
    def _is_stale(self) -> bool:
        present = self._bitmaps.present
        return self._bitmaps.stale or present is None or present.has_gaps

    def _resolved(self, filter_: Filter, query: Query, use: CatalogUse) -> Resolved:
        resolved = self._filters.resolve(filter_, self._max_staleness_seconds(query), use)
        if resolved.missing and not self._store.available:
            raise CatalogUnavailableError("it does not answer, and too little is known of it to apply the filter")
        return resolved

    def _max_staleness_seconds(self, query: Query) -> float:
        asked = query.options.max_staleness_seconds
        return self._settings.max_staleness_seconds if asked is None else asked

    async def _rank(self, query: Query, knowledge: Knowledge, deadline: Deadline) -> Ranking:
        estimated_us = self._recommender.estimated_us(query, knowledge)
        return await self._workbench.run(
            estimated_us,
            lambda fallback_us: self._recommender.rank(query, deadline, knowledge, fallback_us_max=fallback_us),
            deadline,
        )

    async def _race(
        self,
        query: Query,
        filter_: Filter,
        resolved: Resolved,
        knowledge: Knowledge,
        builds: Mapping[Leaf | None, asyncio.Future[LeafBitmap]],
        since: float,
        use: CatalogUse,
        deadline: Deadline,
    ) -> Ranking:
        """Return the ranking of whoever has it first: checking candidates, or reading the leaves that are missing."""
        over = asyncio.Event()
        waiting = {
            asyncio.ensure_future(self._check.rank(query, resolved, knowledge, use, deadline, over.is_set)),
            asyncio.ensure_future(self._by_leaves(query, filter_, knowledge, builds, since, use, deadline)),
        }
        try:
            return await self._first(waiting, deadline)
        finally:
            over.set()

    async def _first(self, waiting: set[asyncio.Task[Ranking | None]], deadline: Deadline) -> Ranking:
        """Return the first outcome that there is, or raise why there is none."""
        for task in waiting:
            # The slower one ends its look-up: a cancelled one costs a connection.
            task.add_done_callback(_retrieve)
        problem: AnnserveError | None = None
        while waiting:
            remaining = max(min(deadline.at, deadline.catalog_at) - time.monotonic(), 0.0)
            timeout = None if math.isinf(remaining) else remaining
            done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done and time.monotonic() < deadline.at:
                raise CatalogUnavailableError("no answer while there is time to do without")
            if not done:
                raise DeadlineExceededError("waiting for the catalogue")
            for task in done:
                try:
                    outcome = task.result()
                except FieldNotIndexedError:
                    raise  # Whether it is refused must not depend on who is faster.
                except AnnserveError as error:
                    problem = error
                else:
                    if outcome is not None:
                        return outcome
        raise problem or CatalogUnavailableError("what the filter needs could not be read")

    async def _by_leaves(
        self,
        query: Query,
        filter_: Filter,
        knowledge: Knowledge,
        builds: Mapping[Leaf | None, asyncio.Future[LeafBitmap]],
        since: float,
        use: CatalogUse,
        deadline: Deadline,
    ) -> Ranking | None:
        # Builds belong to the keeper and to whoever else waits for them: leaving must not end them.
        built = {leaf: await asyncio.shield(build) for leaf, build in builds.items()}
        for leaf, bitmap in built.items():
            if self._bitmaps.age_seconds(bitmap, time.monotonic()) > time.monotonic() - since:
                # It was under way when it was asked for, and had begun too early.
                built[leaf] = await asyncio.shield(self._builder.build(leaf, since))
        known = self._filters.resolve(filter_, self._max_staleness_seconds(query), use, built)
        if known.missing:
            return None
        ranking = await self._rank(query, replace(knowledge, allowed=known.possible), deadline)
        ranking.catalog_age_seconds = known.age_seconds
        return ranking

    async def _history(
        self,
        query: Query,
        deadline: Deadline,
        use: CatalogUse,
        degradations: list[Degradation],
        *,
        is_whole: bool = False,
    ) -> UserHistory:
        if query.user_id is None:
            return NO_HISTORY
        try:
            history = await self._histories.of(query.user_id, self._soon(deadline), use)
        except (CatalogUnavailableError, DeadlineExceededError):
            degradations.append(Degradation.HISTORY_UNAVAILABLE)
            return NO_HISTORY
        known = self._recommender.users.row(query.user_id) is not None
        if known and not is_whole and history.newest_ms <= self._created_ms:
            return replace(history, taste_rows=NO_HISTORY.taste_rows)  # The snapshot has learned from all of it.
        return history

    async def _metadata(
        self,
        query: Query,
        answer: Answer,
        checked: Mapping[str, Metadata],
        deadline: Deadline,
        use: CatalogUse,
        degradations: list[Degradation],
    ) -> Sequence[Metadata]:
        names = query.options.read_mask
        if not names or not answer.item_ids:
            return ()
        if all(item_id in checked for item_id in answer.item_ids):
            found = [chosen(checked[item_id], names) for item_id in answer.item_ids]
            return self._within_bounds(found, degradations)
        try:
            read = await self._metadata_reader.of(
                answer.item_ids, names, self._soon(deadline), query.options.max_staleness_seconds, use
            )
        except (CatalogUnavailableError, DeadlineExceededError):
            degradations.append(Degradation.METADATA_UNAVAILABLE)
            return ()
        return self._within_bounds(read, degradations)

    @staticmethod
    def _within_bounds(found: Sequence[Metadata], degradations: list[Degradation]) -> Sequence[Metadata]:
        """Return ``found`` unless its texts are more than an answer can carry."""
        texts = (value for metadata in found for values in metadata.values() for value in values)
        if sum(len(value) for value in texts if isinstance(value, str)) <= METADATA_CHARACTERS_MAX:
            return found
        degradations.append(Degradation.METADATA_UNAVAILABLE)
        return ()

    def _soon(self, deadline: Deadline) -> Deadline:
        """Return by when something must be there that an answer can do without."""
        return Deadline(min(deadline.at, time.monotonic() + self._settings.wait_seconds))


def _knowledge(allowed: Restriction | None, history: UserHistory, exclusions: Exclusions) -> Knowledge:
    known = Knowledge(allowed=allowed, seen_rows=history.seen_rows, taste_rows=history.taste_rows)
    if exclusions is NO_EXCLUSIONS:
        return known
    excluded_rows = np.concatenate([history.latest(exclusions.of_history), exclusions.rows])
    return replace(known, excluded_rows=excluded_rows)


def _retrieve(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()
