"""Forgetting a user wherever something is known of her."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from annserve.domain.catalog import CatalogStore
from annserve.domain.erasure import Erasure, ErasureStore, digest_of
from annserve.domain.events import EventStore

SETTLE_SECONDS: Final = 1.0
"""How long it takes until all workers know of an erasure, and have written what they held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was forgotten, counted."""

    history_entries: int
    events: int


class UserEraser:
    """Erases users: from histories, events, what workers keep, and the snapshot that is served."""

    def __init__(
        self,
        erasures: ErasureStore,
        events: EventStore,
        histories: CatalogStore | None,
        tell: Callable[[Sequence[Erasure]], None] = lambda _: None,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Erase from ``events`` and ``histories``.

        Args:
            erasures: Where erasures are remembered.
            events: Where events are.
            histories: The catalogue; None without one.
            tell: Has this instance's workers know of erasures; others hear of them from ``erasures``.
            settle_seconds: How long to wait before looking whether something came in meanwhile.
        """
        self._erasures = erasures
        self._events = events
        self._histories = histories
        self._tell = tell
        self._settle_seconds = settle_seconds

    async def erase(self, user_id: str) -> Erased:
        """Forget a user, known or not; once it has begun she is a stranger, though it fails later: do it again.

        Raises:
            CatalogUnavailableError: something could not be written.
        """
        # First of all, so that nothing of what is deleted comes back on the way.
        erasure = Erasure(digest=digest_of(user_id), erased_ms=time.time_ns() // 1_000_000)
        await self._erasures.add(erasure)
        self._tell([erasure])
        erased = await self._erase(user_id)
        await asyncio.sleep(self._settle_seconds)
        late = await self._erase(user_id)
        return Erased(history_entries=erased.history_entries + late.history_entries, events=erased.events + late.events)

    async def _erase(self, user_id: str) -> Erased:
        events = await self._events.erase_user(user_id)
        entries = 0 if self._histories is None else await self._histories.erase_history(user_id)
        return Erased(history_entries=entries, events=events)
