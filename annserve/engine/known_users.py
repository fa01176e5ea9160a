"""The users of a snapshot, without those who were erased since it was trained."""

from __future__ import annotations

from typing import Final

from annserve.domain.erasure import ErasedUsers
from annserve.snapshot.snapshot import Snapshot

TRAINING_MS_MAX: Final = 86_400_000
"""How long before a snapshot was built its interactions may have been read: who was erased since is not known in it."""

_ERASED: Final = 1 << 63
"""Keeps the versions of erased users apart from all others."""


class KnownUsers:
    """Knows the rows of the users of ``snapshot``. Threads may share it."""

    def __init__(self, snapshot: Snapshot, erased: ErasedUsers | None = None) -> None:
        self._users = snapshot.users
        self._erased = ErasedUsers() if erased is None else erased
        self._read_ms = snapshot.manifest.created_time.timestamp() * 1e3 - TRAINING_MS_MAX

    def row(self, user_id: str) -> int | None:
        """Return the row of a user, None for one without a vector, or whose vector is to be forgotten."""
        if len(self._erased) and self._erased.erased_ms(user_id) > self._read_ms:
            return None
        return self._users.row(user_id)

    @property
    def erased(self) -> ErasedUsers:
        """Those that are to be forgotten."""
        return self._erased

    def versions(self, user_id: str | None) -> tuple[int, ...]:
        """Return what an answer for a user rests on here: nothing, or her erasure, before which all was otherwise."""
        erased_ms = self._erased.erased_ms(user_id) if user_id is not None and len(self._erased) else 0
        return (_ERASED | erased_ms,) if erased_ms else ()
