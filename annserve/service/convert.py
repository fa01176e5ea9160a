"""Messages to values and back. Everything a request can get wrong by itself is found here, before any work is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf.descriptor import Descriptor

from annserve.domain.catalog import Schema
from annserve.domain.errors import InvalidArgumentError, NoCatalogError
from annserve.domain.query import (
    Answer,
    CatalogUse,
    Degradation,
    Explanation,
    LimitingRule,
    Mode,
    PlacementUse,
    Query,
    SearchPath,
    Source,
)
from annserve.service import limits
from annserve.service.checks import Checks
from annserve.service.metadata import write_metadata
from annserve.v1 import recommendation_pb2 as messages
from annserve.v1 import recommendation_service_pb2 as service_messages

SOURCES: Final = {
    Source.ITEM_VECTOR: messages.SOURCE_ITEM_VECTOR,
    Source.USER_VECTOR: messages.SOURCE_USER_VECTOR,
    Source.FOLD_IN: messages.SOURCE_FOLD_IN,
    Source.BLEND: messages.SOURCE_BLEND,
    Source.POPULAR: messages.SOURCE_POPULAR,
    Source.EDITORIAL: messages.SOURCE_EDITORIAL,
    Source.EXPLORATION: messages.SOURCE_EXPLORATION,
}
SEARCH_PATHS: Final = {
    SearchPath.HNSW: messages.SEARCH_PATH_HNSW,
    SearchPath.EXACT: messages.SEARCH_PATH_EXACT,
}
LIMITING_RULES: Final = {
    LimitingRule.CATALOGUE: messages.LIMITING_RULE_CATALOGUE,
    LimitingRule.CANDIDATE_ITEM_IDS: messages.LIMITING_RULE_CANDIDATE_ITEMS,
    LimitingRule.FILTER: messages.LIMITING_RULE_FILTER,
    LimitingRule.PLACEMENT: messages.LIMITING_RULE_PLACEMENT,
    LimitingRule.EXCLUDED: messages.LIMITING_RULE_EXCLUDED,
}
DEGRADATIONS: Final = {
    Degradation.CATALOG_STALE: messages.DEGRADATION_CATALOG_STALE,
    Degradation.HISTORY_UNAVAILABLE: messages.DEGRADATION_HISTORY_UNAVAILABLE,
    Degradation.METADATA_UNAVAILABLE: messages.DEGRADATION_METADATA_UNAVAILABLE,
    Degradation.RULES_SKIPPED: messages.DEGRADATION_RULES_SKIPPED,
    Degradation.FILTER_SKIPPED: messages.DEGRADATION_FILTER_SKIPPED,
}
_REQUESTS: Final = {
    Mode.SIMILAR: service_messages.SimilarRequest.DESCRIPTOR,
    Mode.PERSONALIZE: service_messages.PersonalizeRequest.DESCRIPTOR,
    Mode.RELATED: service_messages.RelatedRequest.DESCRIPTOR,
    Mode.PLACEMENT: service_messages.RecommendRequest.DESCRIPTOR,
}


def similar_query(request: service_messages.SimilarRequest, schema: Schema | None) -> Query:
    """Return what ``request`` asks.

    Args:
        request: What came in.
        schema: The fields that filters and read masks may name; None without a catalogue.

    Raises:
        InvalidArgumentError: fields are outside the contract; it lists the first `limits.VIOLATIONS_MAX`.
        NoCatalogError: it needs a catalogue, there is none, and nothing else is wrong.
    """
    checks = Checks(schema)
    query = Query(
        mode=Mode.SIMILAR,
        item_ids=checks.ids("item_ids", request.item_ids, limits.SEED_ITEM_IDS),
        options=checks.options(request),
    )
    checks.finish()
    return query


def personalize_query(request: service_messages.PersonalizeRequest, schema: Schema | None) -> Query:
    """Return what ``request`` asks; raises as `similar_query`."""
    checks = Checks(schema)
    query = Query(
        mode=Mode.PERSONALIZE,
        user_id=checks.optional_id("user_id", request.user_id),
        recent_items=checks.recent_items(request.recent_items),
        options=checks.options(request),
    )
    if query.user_id is None and not request.recent_items:
        checks.add("user_id", "is required unless recent_items are given")
    checks.finish()
    return query


def related_query(request: service_messages.RelatedRequest, schema: Schema | None) -> Query:
    """Return what ``request`` asks; raises as `similar_query`."""
    checks = Checks(schema)
    query = Query(
        mode=Mode.RELATED,
        item_ids=checks.ids("item_ids", request.item_ids, limits.CONTEXT_ITEM_IDS),
        user_id=checks.optional_id("user_id", request.user_id),
        recent_items=checks.recent_items(request.recent_items),
        user_impact=(
            checks.number("user_impact", request.user_impact, limits.USER_IMPACT)
            if request.HasField("user_impact")
            else limits.USER_IMPACT_DEFAULT
        ),
        options=checks.options(request),
    )
    checks.finish()
    return query


def recommend_query(request: service_messages.RecommendRequest, schema: Schema | None) -> Query:
    """Return what ``request`` asks; raises as `similar_query`."""
    checks = Checks(schema)
    query = Query(
        mode=Mode.PLACEMENT,
        item_ids=checks.ids("item_ids", request.item_ids, limits.SHOWN_ITEM_IDS),
        user_id=checks.optional_id("user_id", request.user_id),
        recent_items=checks.recent_items(request.recent_items),
        options=checks.options(request),
        placed=checks.placed(request),
    )
    checks.finish()
    return query


def batch_queries(
    request: service_messages.BatchRecommendRequest, schema: Schema | None
) -> Iterator[Query | InvalidArgumentError | NoCatalogError]:
    """Return what each row of ``request`` asks, or what is wrong with it; a row is read when its turn comes.

    To read them all at once would hold up the event loop: 100 rows of 700 ids each take 18 ms.

    Raises:
        InvalidArgumentError: there are too few or too many rows, or they ask for too much together.
    """
    checks = Checks(schema)
    checks.number("rows", len(request.rows), limits.ROWS)
    checks.finish()
    asked = sum(map(_row_page_size, request.rows))
    if asked > limits.BATCH_PAGE_SIZE_MAX:
        checks.add("rows", f"page sizes must add up to at most {limits.BATCH_PAGE_SIZE_MAX:,}, got {asked}")
    checks.finish()
    return (_row_query(row, schema) for row in request.rows)


def is_fault_of_caller(error: InvalidArgumentError, mode: Mode) -> bool:
    """Return whether all that ``error`` finds wrong are fields of the request that asks for ``mode``.

    The rooms below check their arguments too. Theirs have names of their own, and what is wrong with them is our doing.
    """
    return all(_is_field(_REQUESTS[mode], violation.field) for violation in error.violations)


def _is_field(message: Descriptor | None, path: str) -> bool:
    name, _, rest = path.partition(".")
    field = message.fields_by_name.get(name.partition("[")[0]) if message is not None else None
    return field is not None and (not rest or _is_field(field.message_type, rest))


def _row_page_size(row: service_messages.BatchRecommendRow) -> int:
    """Return how many items ``row`` asks for; 0 where that is not allowed, which is an error of the row alone."""
    kind = row.WhichOneof("request")
    if kind is None:
        return 0
    page_size: int = getattr(row, kind).options.page_size
    return 0 if limits.PAGE_SIZE.problem(page_size) else page_size or limits.PAGE_SIZE_DEFAULT


def _row_query(
    row: service_messages.BatchRecommendRow, schema: Schema | None
) -> Query | InvalidArgumentError | NoCatalogError:
    try:
        match row.WhichOneof("request"):
            case "similar":
                return similar_query(row.similar, schema)
            case "personalize":
                return personalize_query(row.personalize, schema)
            case "related":
                return related_query(row.related, schema)
            case "recommend":
                return recommend_query(row.recommend, schema)
            case None:
                return InvalidArgumentError.of("request", "one of similar, personalize, related, recommend must be set")
    except (InvalidArgumentError, NoCatalogError) as error:
        return error


def write_answer(answer: Answer, recommendations: messages.Recommendations) -> None:
    """Write ``answer`` into an empty message that is already part of a response: nothing is built twice."""
    source = SOURCES[answer.source]
    # Adding in place costs half of building a list of messages: 7 us for 10 rows.
    add = recommendations.results.add
    for item_id, score in zip(answer.item_ids, answer.scores, strict=True):
        add(item_id=item_id, score=score, source=source)
    for result, own_source in zip(recommendations.results, answer.row_sources, strict=False):
        result.source = SOURCES[own_source]
    for result, step in zip(recommendations.results, answer.fallback_steps, strict=False):
        result.fallback_step = step
    if answer.placement is not None:
        _write_placement(answer.placement, recommendations.placement)
    recommendations.snapshot_id = answer.snapshot_id
    recommendations.search_path = SEARCH_PATHS[answer.search_path]
    if answer.selectivity is not None:
        recommendations.selectivity = answer.selectivity
    for result, metadata in zip(recommendations.results, answer.metadata, strict=False):
        write_metadata(metadata, result)
    if answer.missing_ids:
        recommendations.missing_ids.extend(answer.missing_ids)
    if answer.user_impact is not None:
        recommendations.user_impact = answer.user_impact
    if answer.shortfall is not None:
        recommendations.shortfall.requested_count = answer.shortfall.requested
        recommendations.shortfall.returned_count = answer.shortfall.returned
        recommendations.shortfall.eligible_count = answer.shortfall.eligible
        recommendations.shortfall.limiting_rule = LIMITING_RULES[answer.shortfall.limiting_rule]


def _write_placement(use: PlacementUse, message: messages.PlacementUse) -> None:
    message.name, message.version = use.name, use.version
    message.experiment, message.variant = use.experiment, use.variant
    message.mode = "" if use.mode is None else use.mode.value
    message.suppressed_reason = use.suppressed_reason
    if use.user_context_similarity is not None:
        message.user_context_similarity = use.user_context_similarity


def write_serving_info(
    answer: Answer, results: Iterable[messages.Recommendation], serving_info: messages.ServingInfo
) -> None:
    """Write how ``answer``, whose rows are ``results``, was made for this one call."""
    if answer.catalog_age_seconds is not None:
        serving_info.catalog_age.FromNanoseconds(round(answer.catalog_age_seconds * 1e9))
    if answer.degradations:
        serving_info.degradations.extend(map(DEGRADATIONS.__getitem__, answer.degradations))
    if answer.explanation is not None:
        _write_explanation(answer.explanation, results, serving_info)


def _write_explanation(
    explanation: Explanation, results: Iterable[messages.Recommendation], serving_info: messages.ServingInfo
) -> None:
    for position, result in enumerate(results):
        if explanation.likeness_scores:
            result.explanation.likeness = explanation.likeness_scores[position]
        if explanation.affinity_scores:
            result.explanation.affinity = explanation.affinity_scores[position]
            result.explanation.popularity_contribution = explanation.popularity_contributions[position]
        if explanation.user_similarities:
            result.explanation.user_similarity = explanation.user_similarities[position]
        if explanation.context_similarities:
            result.explanation.context_similarity = explanation.context_similarities[position]
        for effect in explanation.effects[position] if explanation.effects else ():
            result.explanation.effects.add(rule=effect.rule, weight=effect.weight)
    for stage, stage_us in explanation.stage_us:
        entry = serving_info.stage_durations.add(stage=stage, row_count=explanation.stage_counts.get(stage))
        entry.duration.FromNanoseconds(round(stage_us * 1_000))
    if explanation.catalog_use is not None:
        _write_catalog_use(explanation.catalog_use, serving_info.catalog_use)


def _write_catalog_use(use: CatalogUse, message: messages.CatalogUse) -> None:
    # Nothing of it may have been needed, and still there is a catalogue.
    message.SetInParent()
    message.bitmap_hit_count = use.bitmap_hits
    message.bitmap_miss_count = use.bitmap_misses
    message.candidate_round_count = use.candidate_rounds
    message.checked_candidate_count = use.candidates_checked
    message.database_call_count = use.database_calls
    message.history_hit_count = use.history_hits
    message.metadata_hit_count = use.metadata_hits
