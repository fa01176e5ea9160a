"""The question that a placement asks for a request: options of both joined."""

from __future__ import annotations

from dataclasses import replace

from cachetools import LRUCache

from annserve.domain.filter import And, Filter, canonical
from annserve.domain.query import Mode, Options, Placed, Query
from annserve.placements.recipe import Recipe

_JOINED: LRUCache[tuple[Filter, Filter], Filter] = LRUCache(1_024)


def options_of(recipe: Recipe, query: Query, placed: Placed, k: int) -> Options:
    """Return how ``k`` items are asked for: what the request says wins, and filters of both must pass."""
    asked = query.options
    # Written out: `replace` takes four times as long, at every call.
    return Options(
        k=k,
        exclude_item_ids=asked.exclude_item_ids,
        candidate_item_ids=asked.candidate_item_ids,
        filter=joined(recipe.filter, asked.filter),
        read_mask=asked.read_mask,
        exclude_seen=recipe.exclude_seen if placed.exclude_seen is None else placed.exclude_seen,
        popularity_weight=recipe.popularity_weight if asked.popularity_weight is None else asked.popularity_weight,
        max_staleness_seconds=(
            recipe.max_staleness_seconds if asked.max_staleness_seconds is None else asked.max_staleness_seconds
        ),
        ef_search=asked.ef_search,
        exact=asked.exact,
        snapshot_id=asked.snapshot_id,
        strict=asked.strict or recipe.strict,
        explain=asked.explain,
        bypass_cache=asked.bypass_cache,
    )


def question_of(query: Query, mode: Mode, user_impact: float, options: Options) -> Query:
    """Return ``query`` as the plain question that ``mode`` asks."""
    if mode is Mode.PERSONALIZE and query.item_ids:
        # They are on screen, whatever is asked.
        options = replace(options, exclude_item_ids=(*options.exclude_item_ids, *query.item_ids))
    return Query(
        mode=mode,
        item_ids=() if mode is Mode.PERSONALIZE else query.item_ids,
        user_id=query.user_id,
        recent_items=query.recent_items,
        user_impact=user_impact,
        options=options,
    )


def joined(one: Filter | None, other: Filter | None) -> Filter | None:
    """Return the canonical filter that passes what both do; None stands for every item."""
    if one is None or other is None:
        return other if one is None else one
    key = (one, other)
    found = _JOINED.get(key)
    if found is None:
        found = _JOINED[key] = canonical(And(key))
    return found
