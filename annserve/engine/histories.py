"""A user's history as rows of a snapshot: read from the catalogue, kept for a moment, shared by the workers."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from cachetools import LRUCache

from annserve.cache.shared import SharedCache
from annserve.cache.single_flight import SingleFlight
from annserve.domain.arrays import Rows
from annserve.domain.catalog import HistoryEntry
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.erasure import ErasedUsers
from annserve.domain.errors import DeadlineExceededError
from annserve.domain.query import CatalogUse
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.fresh_state import FreshState
from annserve.engine.knowledge import NO_ROWS
from annserve.engine.user_changes import UserChanges
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
_NEVER: Final = (-math.inf, NO_HISTORY)


class HistorySource(Protocol):
    """Has histories; `domain.catalog.CatalogStore` does."""

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        """Return the newest entries of a user, at most so many, oldest first; raises as `CatalogStore.history`."""
        ...


class HistoryReader:
    """Reads histories; a user's own history is kept under her own id and nobody else's."""

    def __init__(
        self,
        store: HistorySource,
        fresh: FreshState,
        settings: CatalogSettings,
        cache: SharedCache | None = None,
        changes: UserChanges | None = None,
        erased: ErasedUsers | None = None,
    ) -> None:
        """Read from ``store``, or from what other workers put into ``cache``; rows are those of ``fresh``.

        What was read before ``changes`` of its user is read again, and what is older than her erasure left out.
        """
        self._erased = ErasedUsers() if erased is None else erased
        self._changes = changes or UserChanges()
        self._cache = cache
        self._store = store
        self._fresh = fresh
        self._settings = settings
        self._kept: LRUCache[str, tuple[float, UserHistory]] = LRUCache(_USERS_KEPT)
        """With when it was read, on a clock that all workers have in common."""
        self._flights: SingleFlight[str, tuple[float, UserHistory]] = SingleFlight()

    async def of(self, user_id: str, deadline: Deadline, use: CatalogUse) -> UserHistory:
        """Return the history of ``user_id``, empty for a user that the catalogue does not know.

        Raises:
            CatalogUnavailableError, DeadlineExceededError: it cannot be read, or not in time.
        """
        read_at, history = self._kept.get(user_id, _NEVER)
        is_young = time.monotonic() - read_at < self._settings.history_ttl_seconds
        known = history if is_young and self._changes.is_current(user_id, read_at) else self._shared(user_id)
        if known is not None:
            use.history_hits += 1
            return known
        use.database_calls += 1
        remaining = deadline.at - time.monotonic()
        try:
            # Who joins a look-up waits for it as long as she can, whoever began it.
            async with asyncio.timeout(None if math.isinf(remaining) else max(remaining, 0.0)):
                read_at, history = await self._flights.get(user_id, lambda: self._read(user_id))
                if not self._changes.is_current(user_id, read_at):
                    # It was under way when something changed. The next one begins after that.
                    _, history = await self._flights.get(user_id, lambda: self._read(user_id))
                return history
        except TimeoutError:
            raise DeadlineExceededError("waiting for the catalogue") from None

    async def _read(self, user_id: str) -> tuple[float, UserHistory]:
        deadline = Deadline.after(max(self._settings.wait_seconds, _READ_SECONDS))
        read_at = time.monotonic()
        entries = await self._store.history(user_id, self._settings.history_items_max, deadline)
        if self._cache is not None:
            value = json.dumps([(entry.item_id, entry.event, entry.time_ms) for entry in entries]).encode()
            self._cache.put_shared(_key(user_id), value, read_at, self._settings.history_ttl_seconds)
        return read_at, self._keep(user_id, entries, read_at)

    def _shared(self, user_id: str) -> UserHistory | None:
        """Return what another worker read of a user lately."""
        found = None if self._cache is None else self._cache.get_shared(_key(user_id))
        if found is None or not self._changes.is_current(user_id, found.made_at):
            return None
        entries = [
            HistoryEntry(item_id=item_id, event=event, time_ms=time_ms)
            for item_id, event, time_ms in json.loads(found.value)
        ]
        return self._keep(user_id, entries, found.made_at)

    def _keep(self, user_id: str, entries: Sequence[HistoryEntry], read_at: float) -> UserHistory:
        history = self._as_rows(self._erased.younger(user_id, entries))
        self._kept[user_id] = (read_at, history)
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


def _key(user_id: str) -> bytes:
    return b"history\0" + user_id.encode()
