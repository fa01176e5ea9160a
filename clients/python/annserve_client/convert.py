"""Requests to messages, messages to answers; shared by both clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor

from annserve_client._gen import recommendation_pb2 as messages
from annserve_client._gen import recommendation_service_pb2 as service_messages
from annserve_client.errors import AnnserveError, error_of_status
from annserve_client.requests import Options, Personalize, Related, Request, Similar, WeightedItem
from annserve_client.results import (
    LimitingRule,
    Recommendation,
    Recommendations,
    ScoreExplanation,
    SearchPath,
    Shortfall,
    Source,
)

Message = service_messages.SimilarRequest | service_messages.PersonalizeRequest | service_messages.RelatedRequest
Response = (
    service_messages.SimilarResponse
    | service_messages.PersonalizeResponse
    | service_messages.RelatedResponse
    | service_messages.BatchRecommendResult
)
AnyEnum = TypeVar("AnyEnum", Source, SearchPath, LimitingRule)


def _by_number(kind: type[AnyEnum], descriptor: EnumDescriptor) -> dict[int, AnyEnum]:
    """Return the members of ``kind`` by the number of the value whose name they have: 5 of ``SOURCE_POPULAR``."""
    unspecified, *values = descriptor.values
    prefix = unspecified.name.removesuffix("UNSPECIFIED")
    return {value.number: kind(value.name.removeprefix(prefix).lower()) for value in values}


_SOURCES = _by_number(Source, messages.Source.DESCRIPTOR)
_SEARCH_PATHS = _by_number(SearchPath, messages.SearchPath.DESCRIPTOR)
_LIMITING_RULES = _by_number(LimitingRule, messages.LimitingRule.DESCRIPTOR)


def message_of(request: Request) -> Message:
    """Return ``request`` as it goes over the wire.

    Raises:
        TypeError, ValueError: a value is not of the type, or not in the range, that the wire can hold.
    """
    match request:
        case Similar():
            return service_messages.SimilarRequest(item_ids=_ids(request.item_ids), options=_options(request.options))
        case Personalize():
            return service_messages.PersonalizeRequest(
                user_id=request.user_id or "",
                recent_items=_weighted(request.recent_items),
                options=_options(request.options),
            )
        case Related():
            return service_messages.RelatedRequest(
                item_ids=_ids(request.item_ids),
                user_id=request.user_id or "",
                recent_items=_weighted(request.recent_items),
                user_impact=request.user_impact,
                options=_options(request.options),
            )


def batch_message_of(requests: Iterable[Request]) -> service_messages.BatchRecommendRequest:
    """Return ``requests`` as they go over the wire together."""
    batch = service_messages.BatchRecommendRequest()
    for request in requests:
        match message_of(request):
            case service_messages.SimilarRequest() as message:
                batch.rows.add(similar=message)
            case service_messages.PersonalizeRequest() as message:
                batch.rows.add(personalize=message)
            case service_messages.RelatedRequest() as message:
                batch.rows.add(related=message)
    return batch


def answer_of(response: Response) -> Recommendations:
    """Return the answer in ``response``."""
    answer, serving_info = response.recommendations, response.serving_info
    return Recommendations(
        results=tuple(_recommendation(result) for result in answer.results),
        snapshot_id=answer.snapshot_id,
        missing_ids=tuple(answer.missing_ids),
        shortfall=_shortfall(answer.shortfall) if answer.HasField("shortfall") else None,
        search_path=_SEARCH_PATHS.get(answer.search_path, SearchPath.UNKNOWN),
        selectivity=answer.selectivity,
        user_impact=answer.user_impact if answer.HasField("user_impact") else None,
        attribution_token=serving_info.attribution_token,
        stage_seconds={entry.stage: entry.duration.ToNanoseconds() / 1e9 for entry in serving_info.stage_durations},
    )


def batch_answers_of(response: service_messages.BatchRecommendResponse) -> list[Recommendations | AnnserveError]:
    """Return the answer, or the error, of each row."""
    return [
        error_of_status(result.status) if result.WhichOneof("result") == "status" else answer_of(result)
        for result in response.results
    ]


def _ids(ids: Sequence[str]) -> Sequence[str]:
    if isinstance(ids, str):
        # A string is a sequence of strings too: its characters would be asked for, and found missing.
        raise TypeError(f"ids must be a sequence of ids, got the single string {ids!r}")
    return ids


def _options(options: Options) -> messages.RecommendOptions:
    message = messages.RecommendOptions(
        page_size=options.page_size or 0,
        exclude_item_ids=_ids(options.exclude_item_ids),
        exclude_seen=options.exclude_seen,
        popularity_weight=options.popularity_weight,
        strict=options.strict,
        explain=options.explain,
    )
    if options.candidate_item_ids is not None:
        # Present even when empty: no candidates is not the same as every item.
        message.candidate_items.SetInParent()
        message.candidate_items.item_ids.extend(_ids(options.candidate_item_ids))
    if options.ef_search is not None:
        message.search_parameters.ef_search = options.ef_search
    if options.exact:
        message.search_parameters.exact = True
    if options.snapshot_id is not None:
        message.consistency.snapshot_id = options.snapshot_id
    return message


def _weighted(items: Sequence[WeightedItem]) -> list[messages.WeightedItem]:
    return [messages.WeightedItem(item_id=item.item_id, weight=item.weight) for item in items]


def _recommendation(result: messages.Recommendation) -> Recommendation:
    return Recommendation(
        item_id=result.item_id,
        score=result.score,
        source=_SOURCES.get(result.source, Source.UNKNOWN),
        explanation=_explanation(result.explanation) if result.HasField("explanation") else None,
    )


def _explanation(explanation: messages.ScoreExplanation) -> ScoreExplanation:
    return ScoreExplanation(
        likeness=explanation.likeness if explanation.HasField("likeness") else None,
        affinity=explanation.affinity if explanation.HasField("affinity") else None,
        popularity_contribution=(
            explanation.popularity_contribution if explanation.HasField("popularity_contribution") else None
        ),
    )


def _shortfall(shortfall: messages.Shortfall) -> Shortfall:
    return Shortfall(
        requested_count=shortfall.requested_count,
        returned_count=shortfall.returned_count,
        eligible_count=shortfall.eligible_count,
        limiting_rule=_LIMITING_RULES.get(shortfall.limiting_rule, LimitingRule.UNKNOWN),
    )
