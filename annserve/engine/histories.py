"""A user's history as rows of a snapshot: read from the catalogue, kept for a moment."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from cachetools import TTLCache

from annserve.cache.single_flight import SingleFlight
from annserve.domain.arrays import Rows
from annserve.domain.catalog import CatalogStore, HistoryEntry
from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError
from annserve.domain.query import CatalogUse
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.fresh_state import FreshState
from annserve.engine.knowledge import NO_ROWS
from annserve.placements.recipe import HistoryExclusion

_USERS_KEPT = 10_000
_READ_SECONDS = 0.5
"""How long a look-up goes on at least, for the next who asks, when those who wait for it have left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserHistory:
    """What a user did with items of the snapshot."""

    seen_rows: Rows
    """Every item of it, without repeats."""
    taste_rows: Rows
    """Those that speak of her taste, oldest first, each where it was met last."""
    event_rows: Mapping[str, Rows]
    """The items of each kind of event, without repeats, the one met last at the end."""
    newest_ms: int
    """When the newest entry was made, in milliseconds since 1970; 0 without any."""

    def latest(self, exclusions: Sequence[HistoryExclusion]) -> Rows:
        """Return the rows that ``exclusions`` leave out, repeated where several do."""
        found = [self.event_rows.get(one.event, NO_ROWS)[-one.last :] for one in exclusions]
        return np.concatenate(found) if found else NO_ROWS


NO_HISTORY: Final = UserHistory(seen_rows=NO_ROWS, taste_rows=NO_ROWS, event_rows={}, newest_ms=0)


class HistoryReader:
    """Reads histories; a user's own history is kept under her own id and nobody else's."""

    def __init__(self, store: CatalogStore, fresh: FreshState, settings: CatalogSettings) -> None:
        self._store = store
        self._fresh = fresh
        self._settings = settings
        self._kept: TTLCache[str, UserHistory] = TTLCache(_USERS_KEPT, settings.history_ttl_seconds)
        self._flights: SingleFlight[str, UserHistory] = SingleFlight()

    async def of(self, user_id: str, deadline: Deadline, use: CatalogUse) -> UserHistory:
        """Return the history of ``user_id``, empty for a user that the catalogue does not know.

        Raises:
            CatalogUnavailableError, DeadlineExceededError: it cannot be read, or not in time.
        """
        kept = self._kept.get(user_id)
        if kept is not None:
            use.history_hits += 1
            return kept
        use.database_calls += 1
        remaining = deadline.at - time.monotonic()
        try:
            # Who joins a look-up waits for it as long as she can, whoever began it.
            async with asyncio.timeout(None if math.isinf(remaining) else max(remaining, 0.0)):
                return await self._flights.get(user_id, lambda: self._read(user_id))
        except TimeoutError:
            raise DeadlineExceededError("waiting for the catalogue") from None

    async def _read(self, user_id: str) -> UserHistory:
        deadline = Deadline.after(max(self._settings.wait_seconds, _READ_SECONDS))
        entries = await self._store.history(user_id, self._settings.history_items_max, deadline)
        history = self._kept[user_id] = self._as_rows(entries)
        return history

    def _as_rows(self, entries: Sequence[HistoryEntry]) -> UserHistory:
        seen: dict[int, None] = {}
        taste: dict[int, None] = {}
        by_event: dict[str, dict[int, None]] = {}
        items = self._fresh.items
        for entry in entries:
            row = items.row(entry.item_id)
            if row is None:
                continue
            seen[row] = None
            of_event = by_event.setdefault(entry.event, {})
            of_event.pop(row, None)
            of_event[row] = None
            taste.pop(row, None)
            if entry.event not in self._settings.distaste_events:
                taste[row] = None
        return UserHistory(
            seen_rows=np.fromiter(seen, np.int64, len(seen)),
            taste_rows=np.fromiter(taste, np.int64, len(taste)),
            event_rows={event: np.fromiter(rows, np.int64, len(rows)) for event, rows in by_event.items()},
            newest_ms=max((entry.time_ms for entry in entries), default=0),
        )
