"""What was found, as rows: an answer before it has ids, which rules may still put in another order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from annserve.domain.arrays import Rows, Scores, Vectors
from annserve.domain.catalog import Metadata
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import Answer, CatalogUse, Degradation, Explanation, Mode, Query, SearchPath, Source
from annserve.engine.eligibility import Eligibility
from annserve.engine.knowledge import NO_ROWS
from annserve.engine.live_items import LiveItems
from annserve.engine.query_vectors import QueryVectors
from annserve.engine.stopwatch import Stopwatch
from annserve.engine.unit_vectors import KeptUnitVectors, unit_vectors
from annserve.placements.recipe import HistoryExclusion

if TYPE_CHECKING:
    from annserve.engine.placing.candidate_reader import CandidateReader


@dataclass(slots=True, kw_only=True, eq=False)
class Ranking:
    """The rows that answer a question, best first. Who asks the catalogue adds what came of it."""

    snapshot_id: str
    items: LiveItems
    """The items that the rows are of."""
    rows: Rows
    scores: Scores
    source: Source
    search_path: SearchPath
    selectivity: float | None
    """See `domain.query.Answer`."""
    vectors: QueryVectors
    eligibility: Eligibility
    user_impact: float | None
    stage_us: tuple[tuple[str, float], ...]
    catalog_age_seconds: float | None = None
    degradations: Sequence[Degradation] = ()
    catalog_use: CatalogUse | None = None
    """None without a catalogue."""
    checked: Mapping[str, Metadata] = field(default_factory=dict)
    """By item id, metadata that was read on the way."""
    is_kept: bool = False
    """Whether an equal question is answered with the same arrays, as long as nothing changes."""
    units: KeptUnitVectors | None = None
    """The unit vectors of `rows` as they were found, where they are kept with them."""

    def unit_vectors(self, places: Rows) -> Vectors:
        """Return the unit vectors of those of `rows`, as they are now, that are at ``places``."""
        units, rows = self.units, self.rows
        if units is None or units.rows is not rows:
            return unit_vectors(self.items, rows[places])
        return units.all().take(places, axis=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusions:
    """What a placement leaves out beside what its question does."""

    of_history: Sequence[HistoryExclusion] = ()
    rows: Rows = field(default_factory=lambda: NO_ROWS)


NO_EXCLUSIONS = Exclusions()


class Ranker(Protocol):
    """Finds the rows that answer a question; the recommenders with and without a catalogue do."""

    @property
    def candidates(self) -> CandidateReader | None:
        """What the catalogue says of candidates; None without one."""
        ...

    async def rank(
        self, query: Query, deadline: Deadline = NO_DEADLINE, exclusions: Exclusions = NO_EXCLUSIONS
    ) -> Ranking:
        """Return the best `Options.k` rows; raises as `domain.ports.Recommender.recommend`."""
        ...

    async def vectors(self, query: Query, deadline: Deadline = NO_DEADLINE) -> QueryVectors:
        """Return the vectors that `rank` would search with; raises what it raises of ids and recent items."""
        ...

    async def recent_rows(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> Rows:
        """Return the rows of what a user did lately that speaks of her taste, oldest first."""
        ...

    async def seen_rows(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> Rows:
        """Return the rows of all that a user is known to have dealt with; some may be repeated."""
        ...

    async def described(
        self, answer: Answer, query: Query, checked: Mapping[str, Metadata], deadline: Deadline
    ) -> Answer:
        """Return ``answer`` with the metadata that ``query`` asks for; some of it may have been ``checked``."""
        ...


def answer_of(ranking: Ranking, query: Query) -> Answer:
    """Return ``ranking`` as the answer to ``query``, without metadata."""
    stopwatch = Stopwatch()
    item_ids = ranking.items.ids(ranking.rows)
    stopwatch.lap("order")
    explanation = None
    if query.options.explain:
        explanation = explained(ranking, ranking.items, ranking.rows, (*ranking.stage_us, *stopwatch.laps))
    return Answer(
        snapshot_id=ranking.snapshot_id,
        item_ids=item_ids,
        scores=ranking.scores.tolist(),
        source=ranking.source,
        search_path=ranking.search_path,
        selectivity=ranking.selectivity,
        catalog_age_seconds=ranking.catalog_age_seconds,
        degradations=tuple(ranking.degradations),
        missing_ids=ranking.vectors.missing_ids,
        user_impact=ranking.user_impact if query.mode is Mode.RELATED else None,
        shortfall=ranking.eligibility.shortfall(query.options.k, len(item_ids)),
        explanation=explanation,
    )


def explained(ranking: Ranking, items: LiveItems, rows: Rows, stage_us: tuple[tuple[str, float], ...]) -> Explanation:
    """Return what the scores of ``rows`` are made of by the vectors of ``ranking``, and how it came about."""
    vectors = ranking.vectors
    likeness: list[float] = []
    affinity: list[float] = []
    popularity: list[float] = []
    if vectors.likeness is not None:
        likeness = items.likeness.score_rows(vectors.likeness, rows).tolist()
    if vectors.affinity is not None:
        affinity = items.affinity.score_rows(vectors.affinity, rows).tolist()
        popularity = (vectors.affinity[-1] * items.popularity(rows)).tolist()
    return Explanation(
        likeness_scores=likeness,
        affinity_scores=affinity,
        popularity_contributions=popularity,
        stage_us=stage_us,
        catalog_use=ranking.catalog_use,
    )
