"""When something of a user was last written, or erased, as far as this process knows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from cachetools import TTLCache

_USERS_NOTED = 100_000
_NOTED_SECONDS = 60.0
"""Longer than anything is kept that was read of a user."""


class UserChanges:
    """Says whether what was read of a user is what she is now. One event loop uses it."""

    def __init__(self) -> None:
        self._changed_at: TTLCache[str, float] = TTLCache(_USERS_NOTED, _NOTED_SECONDS)
        self._all_changed_at = -math.inf

    def note(self, user_ids: Iterable[str]) -> None:
        """Note that something of these users has been written."""
        self._changed_at.update(dict.fromkeys(user_ids, time.monotonic()))

    def note_all(self) -> None:
        """Note that something of some user has been written, or erased."""
        self._all_changed_at = time.monotonic()

    def is_current(self, user_id: str, read_at: float) -> bool:
        """Return whether nothing of a user is known to have changed after ``read_at``, in monotonic seconds."""
        return max(self._changed_at.get(user_id, -math.inf), self._all_changed_at) <= read_at
