"""Events as plain values, the same in a document of MongoDB and in a line of a file, but for their id and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from annserve.domain.events import Event, EventType
from annserve.domain.query import Mode, PlacementUse

_OPTIONAL_NAMES: Final = ("attribution_token", "impression_id", "context_item_ids", "value")
_PLACEMENT_TEXTS: Final = ("name", "version", "experiment", "variant", "suppressed_reason")


def values_of(event: Event) -> dict[str, Any]:
    """Return what is kept of ``event`` beside its id and its time; what is empty is left out."""
    values: dict[str, Any] = {"type": event.type.value, "user_id": event.user_id, "item_ids": list(event.item_ids)}
    for name in _OPTIONAL_NAMES:
        if value := getattr(event, name):
            values[name] = list(value) if isinstance(value, tuple) else value
    if event.placement is not None:
        values["placement"] = _placement_values(event.placement)
    return values


def event_of(event_id: str, time_ms: int, values: Mapping[str, Any]) -> Event:
    """Return the event that `values_of` was given.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: they are not of one.
    """
    placement = values.get("placement")
    return Event(
        event_id=event_id,
        type=EventType(values["type"]),
        user_id=values["user_id"],
        item_ids=tuple(values["item_ids"]),
        time_ms=time_ms,
        attribution_token=values.get("attribution_token", ""),
        impression_id=values.get("impression_id", ""),
        placement=None if placement is None else _placement_of(placement),
        context_item_ids=tuple(values.get("context_item_ids", ())),
        value=float(values.get("value", 0.0)),
    )


def _placement_values(use: PlacementUse) -> dict[str, Any]:
    values: dict[str, Any] = {name: text for name in _PLACEMENT_TEXTS if (text := getattr(use, name))}
    if use.mode is not None:
        values["mode"] = use.mode.value
    if use.user_context_similarity is not None:
        values["user_context_similarity"] = use.user_context_similarity
    return values


def _placement_of(values: Mapping[str, Any]) -> PlacementUse:
    mode = values.get("mode")
    return PlacementUse(
        **{name: str(values.get(name, "")) for name in _PLACEMENT_TEXTS},
        mode=None if mode is None else Mode(mode),
        user_context_similarity=values.get("user_context_similarity"),
    )
