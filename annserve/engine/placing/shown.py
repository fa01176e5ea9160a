"""What a placement shows for one request, and the answer that says so."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from annserve.domain.query import (
    Answer,
    CatalogUse,
    Degradation,
    Explanation,
    LimitingRule,
    Mode,
    PlacementUse,
    SearchPath,
    Shortfall,
    Source,
)
from annserve.engine.live_items import LiveItems
from annserve.engine.placing.circumstances import cosine
from annserve.engine.placing.occasion import Occasion
from annserve.engine.placing.page import Page
from annserve.engine.query_vectors import QueryVectors
from annserve.engine.ranking import Ranking, explained
from annserve.engine.unit_vectors import cosines


@dataclass(slots=True, kw_only=True, eq=False)
class Shown:
    """A page, and how it came about."""

    occasion: Occasion
    mode: Mode | None
    """None when nothing is shown on purpose: `suppressed_reason` says why."""
    suppressed_reason: str = ""
    similarity: float | None = None
    """See `domain.query.PlacementUse.user_context_similarity`."""
    vectors: QueryVectors | None = None
    """Those of user and context, where an explanation needs them."""
    page: Page
    ranking: Ranking | None = None
    """What the question found; None where it was not asked, or could not be."""
    degradations: list[Degradation] = field(default_factory=list)
    taken_by_rules: int = 0
    use: CatalogUse = field(default_factory=CatalogUse)
    """What rules took of the catalogue."""
    stages: list[tuple[str, float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """How many rows there were after a stage."""


def answer_of(shown: Shown, snapshot_id: str, items: LiveItems) -> Answer:
    """Return the answer, without metadata: ids are those of ``items``."""
    page, ranking = shown.page, shown.ranking
    source = page.sources[0] if page.sources else Source.POPULAR if ranking is None else ranking.source
    options = shown.occasion.options
    return Answer(
        snapshot_id=snapshot_id,
        item_ids=items.ids(np.array(page.rows, np.int64)),
        scores=page.scores,
        source=source,
        search_path=SearchPath.EXACT if ranking is None else ranking.search_path,
        selectivity=None if ranking is None else ranking.selectivity,
        catalog_age_seconds=None if ranking is None else ranking.catalog_age_seconds,
        degradations=tuple(dict.fromkeys(shown.degradations)),
        missing_ids=() if ranking is None else ranking.vectors.missing_ids,
        user_impact=None if ranking is None or shown.mode is not Mode.RELATED else ranking.user_impact,
        shortfall=None if shown.mode is None else _shortfall(shown),
        explanation=_explanation(shown, items) if options.explain else None,
        placement=_use(shown),
        row_sources=page.sources if page.sources.count(source) < len(page.sources) else (),
        fallback_steps=page.steps if any(page.steps) else (),
    )


def _use(shown: Shown) -> PlacementUse:
    recipe, similarity, vectors = shown.occasion.recipe, shown.similarity, shown.vectors
    if similarity is None and vectors is not None and vectors.affinity is not None and vectors.likeness is not None:
        similarity = cosine(vectors.affinity[:-1], vectors.likeness)
    return PlacementUse(
        name=recipe.name,
        version=recipe.version,
        experiment=recipe.experiment,
        variant=recipe.variant,
        mode=shown.mode,
        suppressed_reason=shown.suppressed_reason,
        user_context_similarity=similarity,
    )


def _shortfall(shown: Shown) -> Shortfall | None:
    requested, returned = shown.occasion.size, len(shown.page.rows)
    if returned >= requested:
        return None
    if shown.ranking is None:
        return Shortfall(requested=requested, returned=returned, eligible=returned, limiting_rule=LimitingRule.FILTER)
    found = shown.ranking.eligibility.shortfall(requested, returned)
    if found is not None and (shown.taken_by_rules or found.eligible >= requested):
        return replace(found, limiting_rule=LimitingRule.PLACEMENT)
    return found


def _explanation(shown: Shown, items: LiveItems) -> Explanation:
    rows, ranking, vectors = np.array(shown.page.rows, np.int64), shown.ranking, shown.vectors
    stages = tuple(shown.stages)
    # What went while the answer was made has no vector any more.
    if ranking is None or len(items.present(rows)) < len(rows):
        return Explanation(stage_us=stages, stage_counts=shown.counts, effects=shown.page.effects)
    use = CatalogUse()
    use.add(shown.use)
    if ranking.catalog_use is not None:
        use.add(ranking.catalog_use)
    user = None if vectors is None or vectors.affinity is None else vectors.affinity[:-1]
    return replace(
        explained(ranking, items, rows, stages),
        catalog_use=None if ranking.catalog_use is None else use,
        stage_counts=shown.counts,
        user_similarities=cosines(items, rows, user).tolist(),
        context_similarities=cosines(items, rows, None if vectors is None else vectors.likeness).tolist(),
        effects=shown.page.effects,
    )
