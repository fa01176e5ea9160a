"""Messages to values and back. Everything a request can get wrong by itself is found here, before any work is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from google.protobuf.descriptor import Descriptor

from annserve.domain.errors import FieldViolation, InvalidArgumentError
from annserve.domain.ids import id_problem
from annserve.domain.query import (
    Answer,
    Explanation,
    LimitingRule,
    Mode,
    Options,
    Query,
    SearchPath,
    Source,
    WeightedItem,
)
from annserve.service import limits
from annserve.service.limits import Limit
from annserve.v1 import recommendation_pb2 as messages
from annserve.v1 import recommendation_service_pb2 as service_messages

SOURCES: Final = {
    Source.ITEM_VECTOR: messages.SOURCE_ITEM_VECTOR,
    Source.USER_VECTOR: messages.SOURCE_USER_VECTOR,
    Source.FOLD_IN: messages.SOURCE_FOLD_IN,
    Source.BLEND: messages.SOURCE_BLEND,
    Source.POPULAR: messages.SOURCE_POPULAR,
}
SEARCH_PATHS: Final = {
    SearchPath.HNSW: messages.SEARCH_PATH_HNSW,
    SearchPath.EXACT: messages.SEARCH_PATH_EXACT,
}
LIMITING_RULES: Final = {
    LimitingRule.CATALOGUE: messages.LIMITING_RULE_CATALOGUE,
    LimitingRule.CANDIDATE_ITEM_IDS: messages.LIMITING_RULE_CANDIDATE_ITEMS,
    LimitingRule.EXCLUDED: messages.LIMITING_RULE_EXCLUDED,
}
_REQUESTS: Final = {
    Mode.SIMILAR: service_messages.SimilarRequest.DESCRIPTOR,
    Mode.PERSONALIZE: service_messages.PersonalizeRequest.DESCRIPTOR,
    Mode.RELATED: service_messages.RelatedRequest.DESCRIPTOR,
}
_DEFAULT_OPTIONS: Final = Options()


def similar_query(request: service_messages.SimilarRequest) -> Query:
    """Return what ``request`` asks.

    Raises:
        InvalidArgumentError: fields are outside the contract; it lists the first `limits.VIOLATIONS_MAX`.
    """
    checks = _Checks()
    query = Query(
        mode=Mode.SIMILAR,
        item_ids=checks.ids("item_ids", request.item_ids, limits.SEED_ITEM_IDS),
        options=checks.options(request),
    )
    checks.finish()
    return query


def personalize_query(request: service_messages.PersonalizeRequest) -> Query:
    """Return what ``request`` asks; raises as `similar_query`."""
    checks = _Checks()
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


def related_query(request: service_messages.RelatedRequest) -> Query:
    """Return what ``request`` asks; raises as `similar_query`."""
    checks = _Checks()
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


def batch_queries(request: service_messages.BatchRecommendRequest) -> Iterator[Query | InvalidArgumentError]:
    """Return what each row of ``request`` asks, or what is wrong with it; a row is read when its turn comes.

    To read them all at once would hold up the event loop: 100 rows of 700 ids each take 18 ms.

    Raises:
        InvalidArgumentError: there are too few or too many rows, or they ask for too much together.
    """
    checks = _Checks()
    checks.number("rows", len(request.rows), limits.ROWS)
    checks.finish()
    asked = sum(map(_row_page_size, request.rows))
    if asked > limits.BATCH_PAGE_SIZE_MAX:
        checks.add("rows", f"page sizes must add up to at most {limits.BATCH_PAGE_SIZE_MAX:,}, got {asked}")
    checks.finish()
    return map(_row_query, request.rows)


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


def _row_query(row: service_messages.BatchRecommendRow) -> Query | InvalidArgumentError:
    try:
        match row.WhichOneof("request"):
            case "similar":
                return similar_query(row.similar)
            case "personalize":
                return personalize_query(row.personalize)
            case "related":
                return related_query(row.related)
            case None:
                return InvalidArgumentError.of("request", "one of similar, personalize, related must be set")
    except InvalidArgumentError as error:
        return error


class _Checks:
    """Reads fields and collects what is wrong with them, so that a caller learns of it all at once."""

    __slots__ = ("_violations",)

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        if len(self._violations) < limits.VIOLATIONS_MAX:
            self._violations.append(FieldViolation(field=field, description=description))

    def finish(self) -> None:
        if self._violations:
            raise InvalidArgumentError(self._violations)

    def number(self, field: str, value: float, limit: Limit) -> float:
        if problem := limit.problem(value):
            self.add(field, problem)
        return value

    def optional_id(self, field: str, value: str) -> str | None:
        if not value:
            return None
        if problem := id_problem(value):
            self.add(field, problem)
        return value

    def ids(self, field: str, values: Sequence[str], limit: Limit) -> tuple[str, ...]:
        """Return the ids; what is over the limit is not even looked at."""
        if problem := limit.problem(len(values)):
            self.add(field, problem)
            return ()
        ids = tuple(values)
        for position, value in enumerate(ids):
            if problem := id_problem(value):
                self.add(f"{field}[{position}]", problem)
        return ids

    def recent_items(self, values: Sequence[messages.WeightedItem]) -> tuple[WeightedItem, ...]:
        if problem := limits.RECENT_ITEMS.problem(len(values)):
            self.add("recent_items", problem)
            return ()
        for position, value in enumerate(values):
            if problem := id_problem(value.item_id):
                self.add(f"recent_items[{position}].item_id", problem)
            if problem := limits.WEIGHT.problem(value.weight):
                self.add(f"recent_items[{position}].weight", problem)
        return tuple(WeightedItem(item_id=value.item_id, weight=value.weight or 1.0) for value in values)

    def options(
        self,
        request: service_messages.SimilarRequest
        | service_messages.PersonalizeRequest
        | service_messages.RelatedRequest,
    ) -> Options:
        if not request.HasField("options"):
            return _DEFAULT_OPTIONS
        options = request.options
        search = options.search_parameters
        self.number("options.page_size", options.page_size, limits.PAGE_SIZE)
        self.number("options.search_parameters.ef_search", search.ef_search, limits.EF_SEARCH)
        popularity_weight = None
        if options.HasField("popularity_weight"):
            popularity_weight = self.number(
                "options.popularity_weight", options.popularity_weight, limits.POPULARITY_WEIGHT
            )
        candidate_item_ids = None
        if options.HasField("candidate_items"):
            candidate_item_ids = self.ids(
                "options.candidate_items.item_ids", options.candidate_items.item_ids, limits.CANDIDATE_ITEM_IDS
            )
        return Options(
            k=options.page_size or limits.PAGE_SIZE_DEFAULT,
            exclude_item_ids=self.ids("options.exclude_item_ids", options.exclude_item_ids, limits.EXCLUDE_ITEM_IDS),
            candidate_item_ids=candidate_item_ids,
            exclude_seen=options.exclude_seen if options.HasField("exclude_seen") else _DEFAULT_OPTIONS.exclude_seen,
            popularity_weight=popularity_weight,
            ef_search=search.ef_search or None,
            exact=search.exact,
            snapshot_id=self.optional_id("options.consistency.snapshot_id", options.consistency.snapshot_id),
            strict=options.strict,
            explain=options.explain,
        )


def write_answer(
    answer: Answer,
    token: str,
    recommendations: messages.Recommendations,
    serving_info: messages.ServingInfo,
) -> None:
    """Write ``answer`` into empty messages that are already part of a response: nothing is built twice."""
    source = SOURCES[answer.source]
    # Adding in place costs half of building a list of messages: 7 us for 10 rows.
    add = recommendations.results.add
    for item_id, score in zip(answer.item_ids, answer.scores, strict=True):
        add(item_id=item_id, score=score, source=source)
    recommendations.snapshot_id = answer.snapshot_id
    recommendations.search_path = SEARCH_PATHS[answer.search_path]
    recommendations.selectivity = answer.selectivity
    if answer.missing_ids:
        recommendations.missing_ids.extend(answer.missing_ids)
    if answer.user_impact is not None:
        recommendations.user_impact = answer.user_impact
    if answer.shortfall is not None:
        recommendations.shortfall.requested_count = answer.shortfall.requested
        recommendations.shortfall.returned_count = answer.shortfall.returned
        recommendations.shortfall.eligible_count = answer.shortfall.eligible
        recommendations.shortfall.limiting_rule = LIMITING_RULES[answer.shortfall.limiting_rule]
    serving_info.attribution_token = token
    if answer.explanation is not None:
        _write_explanation(answer.explanation, recommendations.results, serving_info)


def _write_explanation(
    explanation: Explanation, results: Iterable[messages.Recommendation], serving_info: messages.ServingInfo
) -> None:
    for position, result in enumerate(results):
        if explanation.likeness_scores:
            result.explanation.likeness = explanation.likeness_scores[position]
        if explanation.affinity_scores:
            result.explanation.affinity = explanation.affinity_scores[position]
            result.explanation.popularity_contribution = explanation.popularity_contributions[position]
    for stage, stage_us in explanation.stage_us:
        duration = serving_info.stage_durations.add(stage=stage).duration
        duration.FromNanoseconds(round(stage_us * 1_000))
