"""Candidates under a placement's rules: in which order its recipe shows them, on a page that may have rows already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from annserve.domain.query import RuleEffect, Source
from annserve.engine.arrangement import Candidates, arrange
from annserve.engine.placing.page import Page
from annserve.engine.placing.rules import Ruled
from annserve.engine.ranking import Ranking
from annserve.placements.recipe import Pin, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """The rows to show, best first; sequences are parallel."""

    rows: Sequence[int]
    scores: Sequence[float]
    sources: Sequence[Source]
    effects: Sequence[Sequence[RuleEffect]]
    taken_by_rules: int


def ordered(
    ranking: Ranking, recipe: Recipe, rules: Ruled, k: int, pins: Sequence[tuple[Pin, int]], seed: int, *, explain: bool
) -> Ordered:
    """Return ``ranking`` as ``recipe`` orders it, cut to ``k``; ``pins`` are those that hold, with their rows."""
    items, rows = ranking.items, ranking.rows
    place_of = {row: place for place, row in enumerate(rows.tolist())} if pins else {}
    arranged = arrange(
        Candidates(
            rows=rows,
            scores=ranking.scores,
            vectors=ranking.unit_vectors,
            weights=rules.weights,
            values=rules.values,
            is_fresh=rows >= items.row_count,
        ),
        recipe,
        k,
        [(pin, place_of[row]) for pin, row in pins if row in place_of],
        seed,
        explain=explain,
    )
    sources = [ranking.source] * len(arranged.positions)
    for place in arranged.explored:
        sources[place] = Source.EXPLORATION
    for place in arranged.pinned:
        sources[place] = Source.EDITORIAL
    return Ordered(
        rows=rows[arranged.positions].tolist(),
        scores=arranged.scores.tolist(),
        sources=sources,
        effects=arranged.effects,
        taken_by_rules=arranged.taken_by_rules,
    )


def ordered_below(page: Page, ranking: Ranking, recipe: Recipe, rules: Ruled, *, explain: bool) -> Ordered:
    """Return what ``ranking``, whose first rows are those of ``page``, adds below them: rules look at both."""
    shown = len(page.rows)
    for weights in rules.weights.values():
        weights[:shown] = 1.0  # They are shown, whatever is thought of them now.
    kept = [(Pin(name="", rank=rank, item_id=""), row) for rank, row in enumerate(page.rows, 1)]
    plain = replace(recipe, exploration_share=0.0)
    found = ordered(ranking, plain, rules, shown + page.missing_count, kept, 0, explain=explain)
    return replace(found, **{name: getattr(found, name)[shown:] for name in ("rows", "scores", "sources", "effects")})


def join_above(ranking: Ranking, page: Page) -> None:
    """Put the rows of ``page`` above those of ``ranking``, which has none of them."""
    best = ranking.scores.max(initial=0.0)
    ranking.rows = np.concatenate([np.array(page.rows, np.int64), ranking.rows])
    ranking.scores = np.concatenate([np.full(len(page.rows), best, np.float32), ranking.scores])


def join_below(ranking: Ranking, further: Ranking) -> None:
    """Add the rows of ``further`` that ``ranking`` lacks at its end: no search has found them, so none is better."""
    is_new = ~np.isin(further.rows, ranking.rows)
    scores = further.scores[is_new]
    if len(ranking.scores):
        scores = np.minimum(scores, ranking.scores[-1])
    ranking.items = further.items
    ranking.rows = np.concatenate([ranking.rows, further.rows[is_new]])
    ranking.scores = np.concatenate([ranking.scores, scores])
