"""What users did, as their histories and as their events tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from annserve.domain.catalog import HistoryEntry
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.events import OUTCOMES, EventStore, EventType
from annserve.engine.histories import HistorySource


class HistoryWithOutcomes:
    """Implements `engine.histories.HistorySource`: a history of its own, and beside it what events tell.

    Events are not copied into histories: what is written once cannot be there twice, or in one place and not the other.
    """

    def __init__(self, histories: HistorySource, events: EventStore, words: Mapping[EventType, str]) -> None:
        """Join ``histories`` with ``events``, whose types are called ``words`` there; those without one count not."""
        self._histories = histories
        self._events = events
        self._words = words
        self._types = tuple(type_ for type_ in OUTCOMES if type_ in words)

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        """Return the newest entries of a user, at most ``newest``, oldest first."""
        entries, events = await asyncio.gather(
            self._histories.history(user_id, newest, deadline),
            self._events.of_user(user_id, newest, self._types, deadline),
        )
        outcomes = [
            HistoryEntry(item_id=item_id, event=self._words[event.type], time_ms=event.time_ms)
            for event in events
            for item_id in event.item_ids
        ]
        merged = sorted([*entries, *outcomes], key=lambda entry: entry.time_ms)
        return merged[-newest:] if newest > 0 else []
