"""Messages of EventService to values. What a request can get wrong by itself is found here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from annserve.domain.events import VALUE_MAX, Event, EventType
from annserve.domain.ids import id_problem
from annserve.domain.query import Mode, PlacementUse
from annserve.service import limits
from annserve.service.checks import Checks
from annserve.service.limits import Limit
from annserve.v1 import event_pb2 as messages
from annserve.v1 import event_service_pb2 as service_messages
from annserve.v1 import recommendation_pb2 as parts

EVENTS: Final = Limit("WriteRequest.events", 1, 500, counted="entries")
ITEM_IDS: Final = Limit("Event.item_ids", 1, 500, counted="entries")
CONTEXT_ITEM_IDS: Final = Limit("Event.context_item_ids", 0, 100, counted="entries")
TOKEN_BYTES: Final = Limit("Event.attribution_token", 0, 64, counted="bytes")
VALUE: Final = Limit("Event.value", -VALUE_MAX, VALUE_MAX)
TEXT_BYTES: Final = Limit("Event.placement", 0, 256, counted="bytes")

FUTURE_MS_MAX: Final = 3_600_000
PAST_DAYS_MAX: Final = 366
_PAST_MS_MAX: Final = PAST_DAYS_MAX * 86_400_000

_EVENTS_A_STEP: Final = 16

_TYPES: Final = {
    messages.EVENT_TYPE_IMPRESSION: EventType.IMPRESSION,
    messages.EVENT_TYPE_CLICK: EventType.CLICK,
    messages.EVENT_TYPE_CONVERSION: EventType.CONVERSION,
    messages.EVENT_TYPE_LIKE: EventType.LIKE,
    messages.EVENT_TYPE_DISLIKE: EventType.DISLIKE,
}
_MODES: Final = {"": None} | {mode.value: mode for mode in (Mode.SIMILAR, Mode.PERSONALIZE, Mode.RELATED)}
_PLACEMENT_TEXTS: Final = ("name", "version", "experiment", "variant", "suppressed_reason")


def events_of(request: service_messages.WriteRequest, now_ms: int) -> Iterator[list[Event]]:
    """Return the events of ``request`` in steps: to read 500 at once would hold up the event loop for 10 ms.

    Args:
        request: What came in.
        now_ms: The time of events that say none, in milliseconds since 1970.

    Raises:
        InvalidArgumentError: after the last step, fields of some are outside the contract; not all before are valid.
    """
    checks = Checks(None)
    if problem := EVENTS.problem(len(request.events)):
        checks.add("events", problem)
        checks.finish()
    for start in range(0, len(request.events), _EVENTS_A_STEP):
        step = request.events[start : start + _EVENTS_A_STEP]
        yield [_event(checks, f"events[{start + place}]", event, now_ms) for place, event in enumerate(step)]
    checks.finish()


def _event(checks: Checks, path: str, event: messages.Event, now_ms: int) -> Event:
    for name in ("event_id", "user_id"):
        if problem := id_problem(getattr(event, name)):
            checks.add(f"{path}.{name}", problem)
    type_ = _TYPES.get(event.type)
    if type_ is None:
        checks.add(f"{path}.type", f"must be one of the types of events, got {event.type}")
    _check_text(checks, f"{path}.attribution_token", event.attribution_token, TOKEN_BYTES)
    if problem := VALUE.problem(event.value):
        checks.add(f"{path}.value", problem)
    return Event(
        event_id=event.event_id,
        type=type_ or EventType.IMPRESSION,
        user_id=event.user_id,
        item_ids=checks.ids(f"{path}.item_ids", event.item_ids, ITEM_IDS),
        time_ms=_time_ms(checks, f"{path}.event_time", event.event_time, now_ms)
        if event.HasField("event_time")
        else now_ms,
        attribution_token=event.attribution_token,
        impression_id=checks.optional_id(f"{path}.impression_id", event.impression_id) or "",
        placement=_placement(checks, f"{path}.placement", event.placement) if event.HasField("placement") else None,
        context_item_ids=checks.ids(f"{path}.context_item_ids", event.context_item_ids, CONTEXT_ITEM_IDS),
        value=event.value,
    )


def _time_ms(checks: Checks, path: str, time: Timestamp, now_ms: int) -> int:
    is_time = limits.TIME_SECONDS_MIN <= time.seconds <= limits.TIME_SECONDS_MAX and 0 <= time.nanos < 10**9
    if not is_time:
        checks.add(path, "must be a time of the years 1 to 9999")
        return now_ms
    time_ms: int = time.seconds * 1_000 + time.nanos // 1_000_000
    if time_ms > now_ms + FUTURE_MS_MAX:
        checks.add(path, f"must be at most an hour from now, got {time.ToJsonString()}")
    elif time_ms < now_ms - _PAST_MS_MAX:
        checks.add(path, f"must be at most {PAST_DAYS_MAX} days ago, got {time.ToJsonString()}")
    return time_ms


def _placement(checks: Checks, path: str, use: parts.PlacementUse) -> PlacementUse:
    for name in _PLACEMENT_TEXTS:
        _check_text(checks, f"{path}.{name}", getattr(use, name), TEXT_BYTES)
    if not use.name:
        checks.add(f"{path}.name", "must not be empty")
    if use.mode not in _MODES:
        checks.add(f"{path}.mode", "must be similar, personalize, related, or empty")
    similarity = use.user_context_similarity if use.HasField("user_context_similarity") else None
    if similarity is not None and not math.isfinite(similarity):
        checks.add(f"{path}.user_context_similarity", f"must be a finite number, got {similarity}")
    return PlacementUse(
        **{name: getattr(use, name) for name in _PLACEMENT_TEXTS},
        mode=_MODES.get(use.mode),
        user_context_similarity=similarity,
    )


def _check_text(checks: Checks, path: str, text: str, limit: Limit) -> None:
    if problem := limit.problem(len(text.encode())):
        checks.add(path, problem)
