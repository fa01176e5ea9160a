"""Placements around the plain questions: `RecommendationService.Recommend` asks for one by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol

from annserve.domain.catalog import Schema
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import AnnserveError
from annserve.domain.events import ShownReader
from annserve.domain.ports import Basis, Recommender
from annserve.domain.query import Answer, Placed, Query
from annserve.engine.placing.circumstances import hour_number
from annserve.engine.placing.kept_rankings import KeptRankings
from annserve.engine.placing.occasion import Occasion, Occasions
from annserve.engine.placing.placer import Placer, now_utc
from annserve.engine.placing.shown import answer_of
from annserve.engine.ranking import Ranker
from annserve.engine.recommender import SnapshotRecommender
from annserve.placements.recipe import PlacementSet

_KEPT_STALENESS_SECONDS = 60.0
"""A kept answer may be as old as it is kept for; who wants fields of candidates fresher than this has it made anew."""


class PlainQuestions(Recommender, Ranker, Protocol):
    """Answers the questions that placements ask; the recommenders with and without a catalogue do."""


class PlacementRecommender:
    """Implements `domain.ports.Recommender`: plain questions go through, a placement's recipe is followed."""

    def __init__(
        self,
        inner: PlainQuestions,
        recommender: SnapshotRecommender,
        placements: Callable[[], PlacementSet],
        shown_reader: ShownReader | None = None,
        wait_seconds: float = 0.05,
        now: Callable[[], datetime] = now_utc,
    ) -> None:
        """Follow the recipes of ``placements``.

        Args:
            inner: Answers the questions that they ask.
            recommender: What ``inner`` answers from.
            placements: Returns those that there are now.
            shown_reader: Knows what users were shown lately; without one nothing is rotated.
            wait_seconds: How long it is waited for.
            now: The clock.
        """
        self._inner = inner
        self._recommender = recommender
        self._occasions = Occasions(placements)
        self._placer = Placer(
            inner, KeptRankings(inner), recommender.fresh, self._occasions, shown_reader, wait_seconds, now
        )
        self._now = now

    @property
    def snapshot_id(self) -> str:
        """The snapshot every answer comes from."""
        return self._inner.snapshot_id

    @property
    def schema(self) -> Schema | None:
        """The declared fields that filters may test; None without a catalogue."""
        return self._inner.schema

    def basis(self, query: Query) -> Basis | None:
        """Return what an answer rests on; see `domain.ports.Recommender.basis`."""
        placed = query.placed
        return self._inner.basis(query) if placed is None else self._basis(query, placed)

    def unchanged(self, item_ids: Sequence[str], as_of: float) -> bool:
        """Return whether metadata is unchanged; see `domain.ports.Recommender.unchanged`."""
        return self._inner.unchanged(item_ids, as_of)

    def recommend(self, query: Query, deadline: Deadline = NO_DEADLINE) -> Coroutine[Any, Any, Answer]:
        """Return the answer to ``query``; see `domain.ports.Recommender.recommend` for what it raises.

        UnknownPlacementError besides, when it asks for a placement that there is not; InstanceUnavailableError while
        nothing is known of any.
        """
        placed = query.placed
        return self._inner.recommend(query, deadline) if placed is None else self._placed(query, placed, deadline)

    async def _placed(self, query: Query, placed: Placed, deadline: Deadline) -> Answer:
        self._recommender.check_pin(query)
        occasion = self._occasions.of(query, placed)
        shown = await self._placer.show(occasion, deadline)
        answer = answer_of(shown, self.snapshot_id, self._recommender.fresh.items)
        if not query.options.read_mask:
            return answer
        checked = {} if shown.ranking is None else shown.ranking.checked
        asked = replace(query, options=occasion.options)
        return await self._inner.described(answer, asked, checked, deadline)

    def _basis(self, query: Query, placed: Placed) -> Basis | None:
        try:
            occasion = self._occasions.of(query, placed)
            others = [self._occasions.of_other(occasion, name, 1) for name in occasion.method.fallback_placements]
        except AnnserveError:
            return None  # It will be told to whoever asks.
        found = [self._basis_of(one) for one in (occasion, *others)]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return None
        ages = [one.age_seconds for one in known if one.age_seconds is not None]
        return Basis(
            versions=tuple(version for one in known for version in one.versions),
            age_seconds=max(ages, default=None),
            as_of=known[0].as_of,
        )

    def _basis_of(self, occasion: Occasion) -> Basis | None:
        recipe, method, options = occasion.recipe, occasion.method, occasion.options
        staleness = options.max_staleness_seconds
        if not recipe.is_cacheable:
            return None
        if method.field_names and staleness is not None and staleness < _KEPT_STALENESS_SECONDS:
            return None
        basis = self._inner.basis(replace(occasion.query, options=options))
        reader = self._inner.candidates
        of_rules = reader.versions(method.item_filters, staleness) if reader is not None else ()
        if basis is None or of_rules is None:
            return None
        name = f"{recipe.name}\0{recipe.version}\0{recipe.variant}"
        recipe_number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        hour = (hour_number(occasion.placement, self._now()),) if recipe.reads_clock else ()
        return basis._replace(versions=(*basis.versions, *of_rules, recipe_number, *hour))
