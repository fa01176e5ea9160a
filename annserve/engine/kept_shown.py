"""What users were shown lately, kept for a moment."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cachetools import TTLCache

from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.erasure import ErasedUsers
from annserve.domain.events import ShownItem, ShownReader
from annserve.engine.user_changes import UserChanges

TTL_SECONDS = 2.0
"""How long it takes at most to learn of what went another way than by this worker."""

_USERS_KEPT = 10_000


class KeptShown:
    """Implements `domain.events.ShownReader`. What is written through this worker is seen at once."""

    def __init__(self, reader: ShownReader, changes: UserChanges, erased: ErasedUsers | None = None) -> None:
        """Read by ``reader`` what is not kept, or was before ``changes`` of the user; not what is to be forgotten."""
        self._reader = reader
        self._erased = ErasedUsers() if erased is None else erased
        self._changes = changes
        self._kept: TTLCache[tuple[str, int], tuple[float, Sequence[ShownItem]]] = TTLCache(_USERS_KEPT, TTL_SECONDS)

    async def shown(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[ShownItem]:
        """Return the items that a user was shown last; raises as the reader does."""
        kept = self._kept.get((user_id, newest))
        if kept is not None and self._changes.is_current(user_id, kept[0]):
            return kept[1]
        read_at = time.monotonic()
        items = self._erased.younger(user_id, await self._reader.shown(user_id, newest, deadline))
        self._kept[user_id, newest] = (read_at, items)
        return items
