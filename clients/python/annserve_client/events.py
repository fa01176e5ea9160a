"""What people were shown and what they did, as the server is told of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from annserve_client._gen import event_pb2 as messages
from annserve_client._gen import event_service_pb2 as service_messages
from annserve_client._gen import recommendation_pb2 as parts
from annserve_client.mistakes import explaining, ids_of
from annserve_client.results import PlacementUse, Recommendations


class EventType(str, Enum):
    """What happened."""

    IMPRESSION = "impression"
    """Items were shown."""
    CLICK = "click"
    CONVERSION = "conversion"
    """What the service is there for: a purchase, a chapter read, a subscription."""
    LIKE = "like"
    DISLIKE = "dislike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a user was shown, or did. Bounds are the server's: it says which event is wrong, and how."""

    event_id: str
    """Your own; events with equal ids are one."""
    type: EventType
    user_id: str
    item_ids: Sequence[str]
    """What was shown, best first; else what it was done with."""
    time: datetime | None = None
    """When, with a time zone; None for when the server gets it."""
    attribution_token: str = ""
    impression_id: str = ""
    """The same in an impression and in what came of it."""
    placement: PlacementUse | None = None
    context_item_ids: Sequence[str] = ()
    value: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of events."""

    accepted_count: int
    duplicate_count: int
    """Those that had been written before."""


def impression_of(
    answer: Recommendations,
    user_id: str,
    *,
    shown_count: int | None = None,
    context_item_ids: Sequence[str] = (),
    impression_id: str | None = None,
    time: datetime | None = None,
) -> Event:
    """Return the event that ``answer`` was shown to a user.

    Args:
        answer: What was shown; it has at least one item.
        user_id: To whom.
        shown_count: How many of its items, from the first on; all unless set.
        context_item_ids: What was on screen beside it.
        impression_id: Names this showing; a new random one unless set. The event has the same id, so that one that is
            sent again is not counted twice.
        time: When; when the server gets it, unless set.
    """
    impression_id = impression_id or uuid.uuid4().hex
    return Event(
        event_id=impression_id,
        type=EventType.IMPRESSION,
        user_id=user_id,
        item_ids=tuple(item.item_id for item in answer.results[:shown_count]),
        time=time,
        attribution_token=answer.attribution_token,
        impression_id=impression_id,
        placement=answer.placement,
        context_item_ids=context_item_ids,
    )


def outcome_of(
    impression: Event,
    type: EventType,  # noqa: A002 - as the event's field
    item_ids: Sequence[str],
    *,
    value: float = 0.0,
    event_id: str | None = None,
    time: datetime | None = None,
) -> Event:
    """Return the event that the user of ``impression`` did something with ``item_ids`` of it."""
    return Event(
        event_id=event_id or uuid.uuid4().hex,
        type=type,
        user_id=impression.user_id,
        item_ids=item_ids,
        time=time,
        attribution_token=impression.attribution_token,
        impression_id=impression.impression_id,
        value=value,
    )


def write_message_of(events: Iterable[Event]) -> service_messages.WriteRequest:
    """Return ``events`` as they go over the wire together."""
    return service_messages.WriteRequest(events=map(_message_of, events))


def written_of(response: service_messages.WriteResponse) -> Written:
    """Return what became of the events that ``response`` answers."""
    return Written(accepted_count=response.accepted_count, duplicate_count=response.duplicate_count)


@explaining
def _message_of(event: Event) -> messages.Event:
    message = messages.Event(
        event_id=event.event_id,
        type=messages.EventType.Value(f"EVENT_TYPE_{EventType(event.type).name}"),
        user_id=event.user_id,
        item_ids=ids_of(event.item_ids),
        attribution_token=event.attribution_token,
        impression_id=event.impression_id,
        context_item_ids=ids_of(event.context_item_ids),
        value=event.value,
    )
    if event.time is not None:
        message.event_time.FromDatetime(event.time)
    if event.placement is not None:
        message.placement.CopyFrom(_placement_message(event.placement))
    return message


def _placement_message(use: PlacementUse) -> parts.PlacementUse:
    return parts.PlacementUse(
        name=use.name,
        version=use.version,
        experiment=use.experiment,
        variant=use.variant,
        mode=use.mode,
        suppressed_reason=use.suppressed_reason,
        user_context_similarity=use.user_context_similarity,
    )
