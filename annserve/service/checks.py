"""Reading a request's fields, and collecting what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Final, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from annserve.domain.catalog import Schema
from annserve.domain.errors import FieldViolation, InvalidArgumentError, NoCatalogError
from annserve.domain.filter import Filter
from annserve.domain.ids import id_problem
from annserve.domain.query import ContextValue, Options, Placed, WeightedItem
from annserve.service import limits
from annserve.service.filters import read_filter, unknown_field
from annserve.service.limits import Limit
from annserve.v1 import recommendation_pb2 as messages
from annserve.v1 import recommendation_service_pb2 as service_messages

Request: TypeAlias = (
    service_messages.SimilarRequest
    | service_messages.PersonalizeRequest
    | service_messages.RelatedRequest
    | service_messages.RecommendRequest
)

_DEFAULT_OPTIONS: Final = Options()


class Checks:
    """Reads fields and collects what is wrong with them, so that a caller learns of it all at once."""

    __slots__ = ("_needs_catalog", "_schema", "_violations")

    def __init__(self, schema: Schema | None) -> None:
        self._schema = schema
        self._violations: list[FieldViolation] = []
        self._needs_catalog: str | None = None

    def add(self, field: str, description: str) -> None:
        """Note what is wrong with ``field``; after `limits.VIOLATIONS_MAX` of them, nothing more."""
        if len(self._violations) < limits.VIOLATIONS_MAX:
            self._violations.append(FieldViolation(field=field, description=description))

    def finish(self) -> None:
        """Raise InvalidArgumentError for what is wrong; failing that, NoCatalogError where a catalogue is needed."""
        if self._violations:
            raise InvalidArgumentError(self._violations)
        if self._needs_catalog is not None:
            raise NoCatalogError(self._needs_catalog)

    def number(self, field: str, value: float, limit: Limit) -> float:
        """Return ``value``, checked."""
        if problem := limit.problem(value):
            self.add(field, problem)
        return value

    def optional_id(self, field: str, value: str) -> str | None:
        """Return the id, None where it is empty."""
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
        """Return the items, oldest first, with the weight that 0 stands for."""
        if problem := limits.RECENT_ITEMS.problem(len(values)):
            self.add("recent_items", problem)
            return ()
        for position, value in enumerate(values):
            if problem := id_problem(value.item_id):
                self.add(f"recent_items[{position}].item_id", problem)
            if problem := limits.WEIGHT.problem(value.weight):
                self.add(f"recent_items[{position}].weight", problem)
        return tuple(WeightedItem(item_id=value.item_id, weight=value.weight or 1.0) for value in values)

    def placed(self, request: service_messages.RecommendRequest) -> Placed:
        """Return which placement is asked, and under what circumstances; whether it knows them, it says itself."""
        if not limits.PLACEMENT.fullmatch(request.placement):
            self.add("placement", "must be 1 to 64 characters out of a-z 0-9 _ -")
        variants = request.forced_variants
        if problem := limits.FORCED_VARIANTS.problem(len(variants)):
            self.add("forced_variants", problem)
        options = request.options
        return Placed(
            placement=request.placement,
            context=self._context(request.context),
            experiment_unit=self.optional_id("experiment_unit", request.experiment_unit),
            forced_variants=dict(variants),
            page_size=options.page_size or None,
            exclude_seen=options.exclude_seen if options.HasField("exclude_seen") else None,
        )

    def options(self, request: Request) -> Options:
        """Return the options of ``request``, with the defaults of what is not set."""
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
            filter=self._filter(options),
            read_mask=self._read_mask(options),
            max_staleness_seconds=self._max_staleness_seconds(options.consistency),
            exclude_seen=options.exclude_seen if options.HasField("exclude_seen") else _DEFAULT_OPTIONS.exclude_seen,
            popularity_weight=popularity_weight,
            ef_search=search.ef_search or None,
            exact=search.exact,
            snapshot_id=self.optional_id("options.consistency.snapshot_id", options.consistency.snapshot_id),
            strict=options.strict,
            explain=options.explain,
            bypass_cache=options.consistency.bypass_cache,
        )

    def _context(self, values: Mapping[str, messages.ContextValue]) -> Mapping[str, ContextValue]:
        if problem := limits.CONTEXT.problem(len(values)):
            self.add("context", problem)
            return {}
        context: dict[str, ContextValue] = {}
        for name in sorted(values):
            kind = values[name].WhichOneof("value")
            field = f"context[{name[:64]!r}]"
            if kind is None:
                self.add(field, "one of string_value, number_value, bool_value, time_value must be set")
                continue
            value = getattr(values[name], kind)
            if problem := _context_problem(value):
                self.add(field, problem)
            else:
                context[name] = value.ToDatetime(UTC) if kind == "time_value" else value
        return context

    def _filter(self, options: messages.RecommendOptions) -> Filter | None:
        if not options.HasField("filter"):
            return None
        if self._schema is None:
            self._needs_catalog = self._needs_catalog or "options.filter"
            return None
        return read_filter(options.filter, self._schema, "options.filter", self.add)

    def _read_mask(self, options: messages.RecommendOptions) -> tuple[str, ...]:
        """Return the names, each once."""
        names = options.read_mask.paths
        if problem := limits.READ_MASK.problem(len(names)):
            self.add("options.read_mask", problem)
            return ()
        if names and self._schema is None:
            self._needs_catalog = self._needs_catalog or "options.read_mask"
            return ()
        for position, name in enumerate(names):
            if self._schema is not None and self._schema.field(name) is None:
                self.add(f"options.read_mask.paths[{position}]", unknown_field(self._schema, name))
        return tuple(dict.fromkeys(names))

    def _max_staleness_seconds(self, consistency: messages.ConsistencyOptions) -> float | None:
        if not consistency.HasField("max_staleness"):
            return None
        field = "options.consistency.max_staleness"
        return self.number(field, _seconds_of(consistency.max_staleness), limits.MAX_STALENESS)


def _context_problem(value: str | float | bool | Timestamp) -> str | None:
    match value:
        case Timestamp():
            is_time = limits.TIME_SECONDS_MIN <= value.seconds <= limits.TIME_SECONDS_MAX and 0 <= value.nanos < 10**9
            return None if is_time else "must be a time of the years 1 to 9999"
        case str():
            return limits.CONTEXT_STRING_BYTES.problem(len(value.encode()))
        case float() if not math.isfinite(value):
            return f"must be a finite number, got {value}"
        case _:
            return None


def _seconds_of(duration: Duration) -> float:
    """Return the length of ``duration``, which is all that is looked at: its parts may be of any sign."""
    seconds: float = duration.seconds + duration.nanos / 1e9
    return seconds
