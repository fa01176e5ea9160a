"""What people did with what they were shown, and the port of the stores that keep it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.query import PlacementUse

VALUE_MAX: Final = 10**12
"""What a conversion is worth at most, up or down: the sum of a year of such is still exact to a unit's thousandth."""


class EventType(Enum):
    """What happened."""

    IMPRESSION = "impression"
    """Items were shown, in the order of `Event.item_ids`."""
    CLICK = "click"
    CONVERSION = "conversion"
    """What the service is there for: a purchase, a chapter read, a subscription."""
    LIKE = "like"
    DISLIKE = "dislike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a user was shown, or did. Written once: another one with its id changes nothing."""

    event_id: str
    """The caller's own, 1 to 128 bytes; equal ids are one event."""
    type: EventType
    user_id: str
    item_ids: tuple[str, ...]
    """What was shown, best first; else the items that it was done with."""
    time_ms: int
    """When, in milliseconds since 1970, UTC."""
    attribution_token: str = ""
    """Of the answer that led to it; empty where none is known to have."""
    impression_id: str = ""
    """The caller's own id of one showing of an answer: what joins outcomes to their impression."""
    placement: PlacementUse | None = None
    """How the shown answer came about; of impressions."""
    context_item_ids: tuple[str, ...] = ()
    """What was on screen beside it; of impressions."""
    value: float = 0.0
    """What a conversion was worth, in the team's own unit; at most `VALUE_MAX`, up or down, unless it is an old one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of events."""

    accepted_count: int
    duplicate_count: int
    """Events whose id had been written before."""
    duplicate_places: tuple[int, ...] = ()
    """Which those are, by their places among what was written, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """An item that a user was shown."""

    item_id: str
    time_ms: int
    """When last, in milliseconds since 1970, UTC."""


OUTCOMES: Final = (EventType.CLICK, EventType.CONVERSION, EventType.LIKE, EventType.DISLIKE)
"""What users do, rather than what is done to them."""


def shown_items(impressions: Iterable[Event], newest: int) -> list[ShownItem]:
    """Return the items of ``impressions``, latest first, each once, at most ``newest`` of them."""
    shown: dict[str, ShownItem] = {}
    for impression in impressions:
        for item_id in impression.item_ids:
            if item_id not in shown:
                if len(shown) >= newest:
                    return list(shown.values())
                shown[item_id] = ShownItem(item_id=item_id, time_ms=impression.time_ms)
    return list(shown.values())


class ShownReader(Protocol):
    """Knows what users were shown lately."""

    async def shown(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[ShownItem]:
        """Return the items that ``user_id`` was shown last, at most ``newest`` of them, each once, latest first.

        Raises:
            CatalogUnavailableError, DeadlineExceededError: it cannot be read, or not in time.
        """
        ...


class EventStore(ShownReader, Protocol):
    """Keeps events, wherever that is. Raises as `ShownReader.shown`."""

    async def write(self, events: Sequence[Event], deadline: Deadline = NO_DEADLINE) -> Written:
        """Keep ``events``: when this returns they outlive the process, and a majority of the database's members.

        When it fails some may have been kept: write the same again.
        """
        ...

    async def of_user(
        self,
        user_id: str,
        newest: int,
        types: Collection[EventType] = tuple(EventType),
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[Event]:
        """Return a user's newest events of ``types``, at most so many, latest first; none for an unknown user."""
        ...

    def read(
        self, since_ms: int, until_ms: int, types: Collection[EventType] = tuple(EventType)
    ) -> AsyncIterator[Sequence[Event]]:
        """Return the events of ``types`` of ``[since_ms, until_ms)``, by time, in chunks of at most some thousand."""
        ...

    async def erase_user(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        """Forget all events of a user, and return how many those were."""
        ...

    async def maintain(self, keep_days: int) -> None:
        """Make the indexes that are missing, and drop what is older than ``keep_days``, now and from now on.

        A store that cannot see to the latter by itself does it now: ask it once a day.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...
