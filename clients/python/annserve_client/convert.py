"""Requests to messages, messages to answers; shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from reprlib import repr as shortened
from typing import Any, TypeVar, get_args

from google.protobuf.descriptor import EnumDescriptor

from annserve_client._gen import filter_pb2 as filter_messages
from annserve_client._gen import recommendation_pb2 as messages
from annserve_client._gen import recommendation_service_pb2 as service_messages
from annserve_client.errors import AnnserveError, error_of_status
from annserve_client.filters import (
    AllOf,
    AnyOf,
    Contains,
    Equals,
    Exists,
    Filter,
    NoneOf,
    OneOf,
    Range,
    Value,
)
from annserve_client.mistakes import explaining, ids_of
from annserve_client.requests import Options, Personalize, Recommend, Related, Request, Similar, WeightedItem
from annserve_client.results import (
    CacheSource,
    CatalogUse,
    Degradation,
    LimitingRule,
    PlacementUse,
    Recommendation,
    Recommendations,
    RuleEffect,
    ScoreExplanation,
    SearchPath,
    Shortfall,
    Source,
)

BATCH_ROWS_MAX = 100
BATCH_PAGE_SIZES_MAX = 5_000
BATCH_BYTES_MAX = 600 * 1024
"""Of the 640 KiB that a request may have; the lengths of the rows are not counted."""
PAGE_SIZE_DEFAULT = 10

Message = (
    service_messages.SimilarRequest
    | service_messages.PersonalizeRequest
    | service_messages.RelatedRequest
    | service_messages.RecommendRequest
)
Response = (
    service_messages.SimilarResponse
    | service_messages.PersonalizeResponse
    | service_messages.RelatedResponse
    | service_messages.RecommendResponse
    | service_messages.BatchRecommendResult
)
AnyEnum = TypeVar("AnyEnum", Source, SearchPath, LimitingRule, Degradation, CacheSource)


def _by_number(kind: type[AnyEnum], descriptor: EnumDescriptor) -> dict[int, AnyEnum]:
    """Return the members of ``kind`` by the number of the value whose name they have: 5 of ``SOURCE_POPULAR``."""
    unspecified, *values = descriptor.values
    prefix = unspecified.name.removesuffix("UNSPECIFIED")
    return {value.number: kind(value.name.removeprefix(prefix).lower()) for value in values}


_SOURCES = _by_number(Source, messages.Source.DESCRIPTOR)
_SEARCH_PATHS = _by_number(SearchPath, messages.SearchPath.DESCRIPTOR)
_DEGRADATIONS = _by_number(Degradation, messages.Degradation.DESCRIPTOR)
_CACHE_SOURCES = _by_number(CacheSource, messages.CacheSource.DESCRIPTOR)
_LIMITING_RULES = _by_number(LimitingRule, messages.LimitingRule.DESCRIPTOR)
_PLACEMENT_TEXTS = ("name", "version", "experiment", "variant", "mode", "suppressed_reason")


@explaining
def message_of(request: Request) -> Message:
    """Return ``request`` as it goes over the wire.

    Raises:
        TypeError, ValueError: a value is not of the type, or not in the range, that the wire can hold.
    """
    match request:
        case Similar():
            return service_messages.SimilarRequest(item_ids=ids_of(request.item_ids), options=_options(request.options))
        case Personalize():
            return service_messages.PersonalizeRequest(
                user_id=_id(request.user_id),
                recent_items=_weighted(request.recent_items),
                options=_options(request.options),
            )
        case Related():
            return service_messages.RelatedRequest(
                item_ids=ids_of(request.item_ids),
                user_id=_id(request.user_id),
                recent_items=_weighted(request.recent_items),
                user_impact=request.user_impact,
                options=_options(request.options),
            )
        case Recommend():
            return service_messages.RecommendRequest(
                placement=request.placement,
                item_ids=ids_of(request.item_ids),
                user_id=_id(request.user_id),
                recent_items=_weighted(request.recent_items),
                context=_context(request.context),
                experiment_unit=_id(request.experiment_unit),
                forced_variants=request.forced_variants,
                options=_options(request.options),
            )
    raise TypeError(
        f"a request must be {' or '.join(kind.__name__ for kind in get_args(Request))}, "
        f"got {type(request).__name__} {shortened(request)}"
    )


def batch_message_of(requests: Iterable[Request]) -> service_messages.BatchRecommendRequest:
    """Return ``requests`` as they go over the wire together."""
    return service_messages.BatchRecommendRequest(rows=map(_row, requests))


def batches_of(
    requests: Iterable[Request], rows_max: int
) -> Iterator[tuple[list[Request], service_messages.BatchRecommendRequest]]:
    """Give ``requests`` in batches of at most ``rows_max``, within the server's bounds of page sizes and bytes.

    Raises:
        ValueError: ``rows_max`` is not 1 to 100.
    """
    if not 1 <= rows_max <= BATCH_ROWS_MAX:
        raise ValueError(f"rows_per_call must be 1 to {BATCH_ROWS_MAX}, got {rows_max}")
    asked: list[Request] = []
    batch = service_messages.BatchRecommendRequest()
    page_sizes = size_bytes = 0
    for request in requests:
        row = _row(request)
        # The page size of a placement is its file's; what is too much then is a matter of one batch, and says so.
        page_size, row_bytes = request.options.page_size or PAGE_SIZE_DEFAULT, row.ByteSize()
        if asked and (
            len(asked) == rows_max
            or page_sizes + page_size > BATCH_PAGE_SIZES_MAX
            or size_bytes + row_bytes > BATCH_BYTES_MAX
        ):
            yield asked, batch
            asked, batch = [], service_messages.BatchRecommendRequest()
            page_sizes = size_bytes = 0
        asked.append(request)
        batch.rows.append(row)
        page_sizes, size_bytes = page_sizes + page_size, size_bytes + row_bytes
    if asked:
        yield asked, batch


def _row(request: Request) -> service_messages.BatchRecommendRow:
    match message_of(request):
        case service_messages.SimilarRequest() as message:
            return service_messages.BatchRecommendRow(similar=message)
        case service_messages.PersonalizeRequest() as message:
            return service_messages.BatchRecommendRow(personalize=message)
        case service_messages.RelatedRequest() as message:
            return service_messages.BatchRecommendRow(related=message)
        case service_messages.RecommendRequest() as message:
            return service_messages.BatchRecommendRow(recommend=message)


def answer_of(response: Response) -> Recommendations:
    """Return the answer in ``response``."""
    answer, serving_info = response.recommendations, response.serving_info
    return Recommendations(
        results=tuple(_recommendation(result) for result in answer.results),
        snapshot_id=answer.snapshot_id,
        missing_ids=tuple(answer.missing_ids),
        shortfall=_shortfall(answer.shortfall) if answer.HasField("shortfall") else None,
        search_path=_SEARCH_PATHS.get(answer.search_path, SearchPath.UNKNOWN),
        selectivity=_given(answer, "selectivity"),
        user_impact=_given(answer, "user_impact"),
        attribution_token=serving_info.attribution_token,
        stage_seconds={entry.stage: entry.duration.ToNanoseconds() / 1e9 for entry in serving_info.stage_durations},
        catalog_age_seconds=(
            serving_info.catalog_age.ToNanoseconds() / 1e9 if serving_info.HasField("catalog_age") else None
        ),
        degradations=tuple(_DEGRADATIONS.get(number, Degradation.UNKNOWN) for number in serving_info.degradations),
        catalog_use=_catalog_use(serving_info.catalog_use) if serving_info.HasField("catalog_use") else None,
        cache_source=(
            _CACHE_SOURCES.get(serving_info.cache.source, CacheSource.UNKNOWN)
            if serving_info.HasField("cache")
            else None
        ),
        cache_age_seconds=serving_info.cache.age.ToNanoseconds() / 1e9 if serving_info.HasField("cache") else None,
        placement=_placement(answer.placement) if answer.HasField("placement") else None,
        stage_row_counts={
            entry.stage: entry.row_count for entry in serving_info.stage_durations if entry.HasField("row_count")
        },
    )


def batch_answers_of(response: service_messages.BatchRecommendResponse) -> list[Recommendations | AnnserveError]:
    """Return the answer, or the error, of each row."""
    return [
        error_of_status(result.status) if result.WhichOneof("result") == "status" else answer_of(result)
        for result in response.results
    ]


def _id(given: str | None) -> str:
    # Only None is no id: the number 0 is a mistake, like any other number.
    return "" if given is None else given


def _options(options: Options) -> messages.RecommendOptions:
    message = messages.RecommendOptions(
        page_size=options.page_size or 0,
        exclude_item_ids=ids_of(options.exclude_item_ids),
        exclude_seen=options.exclude_seen,
        popularity_weight=options.popularity_weight,
        strict=options.strict,
        explain=options.explain,
    )
    if options.candidate_item_ids is not None:
        # Present even when empty: no candidates is not the same as every item.
        message.candidate_items.SetInParent()
        message.candidate_items.item_ids.extend(ids_of(options.candidate_item_ids))
    if options.ef_search is not None:
        message.search_parameters.ef_search = options.ef_search
    if options.exact:
        message.search_parameters.exact = True
    if options.bypass_cache:
        message.consistency.bypass_cache = True
    if options.snapshot_id is not None:
        message.consistency.snapshot_id = options.snapshot_id
    if options.max_staleness_seconds is not None:
        message.consistency.max_staleness.FromNanoseconds(round(options.max_staleness_seconds * 1e9))
    if options.filter is not None:
        message.filter.CopyFrom(_filter(options.filter))
    if options.read_mask:
        message.read_mask.paths.extend(ids_of(options.read_mask))
    return message


def _filter(filter_: Filter) -> filter_messages.Filter:
    match filter_:
        case AllOf(filters):
            return filter_messages.Filter(all_of=_filters(filters))
        case AnyOf(filters):
            return filter_messages.Filter(any_of=_filters(filters))
        case NoneOf(filters):
            return filter_messages.Filter(none_of=_filters(filters))
        case Equals(field, value):
            return _condition(field, equals=_value(value))
        case Contains(field, value):
            return _condition(field, contains=_value(value))
        case OneOf(field, values):
            return _condition(field, one_of=filter_messages.FieldValues(values=map(_value, values)))
        case Range(field=field):
            bounds = {side: getattr(filter_, side) for side in ("minimum", "above", "maximum", "below")}
            sent = {side: _value(bound) for side, bound in bounds.items() if bound is not None}
            return _condition(field, range=filter_messages.FieldRange(**sent))
        case Exists(field):
            return _condition(field, exists=True)
    raise TypeError(f"{filter_!r} is no filter that can be sent")


def _filters(filters: Sequence[Filter]) -> filter_messages.FilterList:
    return filter_messages.FilterList(filters=map(_filter, filters))


def _condition(field: str, **test: Any) -> filter_messages.Filter:
    return filter_messages.Filter(condition=filter_messages.FieldCondition(field=field, **test))


def _value(value: Value) -> filter_messages.FieldValue:
    match value:
        case bool():
            return filter_messages.FieldValue(bool_value=value)
        case str():
            return filter_messages.FieldValue(string_value=value)
        case datetime():
            message = filter_messages.FieldValue()
            message.time_value.FromDatetime(value)
            return message
        case _:
            return filter_messages.FieldValue(number_value=value)


def _context(context: Mapping[str, Value]) -> dict[str, messages.ContextValue]:
    # Both kinds of values have the same fields, each of the same number.
    return {
        name: messages.ContextValue.FromString(_value(value).SerializeToString()) for name, value in context.items()
    }


def _values(values: filter_messages.FieldValues) -> tuple[Value, ...]:
    """Return the values that this client knows how to hold."""
    return tuple(
        value.time_value.ToDatetime(tzinfo=UTC) if kind == "time_value" else getattr(value, kind)
        for value in values.values
        if (kind := value.WhichOneof("kind")) is not None
    )


def _catalog_use(use: messages.CatalogUse) -> CatalogUse:
    return CatalogUse(**{count.name: getattr(use, count.name) for count in fields(CatalogUse)})


def _weighted(items: Sequence[WeightedItem]) -> list[messages.WeightedItem]:
    return [messages.WeightedItem(item_id=item.item_id, weight=item.weight) for item in items]


def _recommendation(result: messages.Recommendation) -> Recommendation:
    return Recommendation(
        item_id=result.item_id,
        score=result.score,
        source=_SOURCES.get(result.source, Source.UNKNOWN),
        explanation=_explanation(result.explanation) if result.HasField("explanation") else None,
        metadata={name: _values(values) for name, values in result.metadata.items()},
        fallback_step=result.fallback_step,
    )


def _explanation(explanation: messages.ScoreExplanation) -> ScoreExplanation:
    return ScoreExplanation(
        likeness=_given(explanation, "likeness"),
        affinity=_given(explanation, "affinity"),
        popularity_contribution=_given(explanation, "popularity_contribution"),
        user_similarity=_given(explanation, "user_similarity"),
        context_similarity=_given(explanation, "context_similarity"),
        effects=tuple(RuleEffect(rule=effect.rule, weight=_given(effect, "weight")) for effect in explanation.effects),
    )


def _placement(use: messages.PlacementUse) -> PlacementUse:
    return PlacementUse(
        name=use.name,
        version=use.version,
        experiment=use.experiment,
        variant=use.variant,
        mode=use.mode,
        suppressed_reason=use.suppressed_reason,
        user_context_similarity=_given(use, "user_context_similarity"),
    )


def _given(message: Any, name: str) -> float | None:
    """Return an optional field of ``message``, None where it is not set."""
    return getattr(message, name) if message.HasField(name) else None


def _shortfall(shortfall: messages.Shortfall) -> Shortfall:
    return Shortfall(
        requested_count=shortfall.requested_count,
        returned_count=shortfall.returned_count,
        eligible_count=shortfall.eligible_count,
        limiting_rule=_LIMITING_RULES.get(shortfall.limiting_rule, LimitingRule.UNKNOWN),
    )
