"""Following a source of snapshots: what it names is fetched, served, and then live."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from annserve.domain.errors import ActivationRefusedError
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.snapshot.pull import SnapshotSource

RETRY_SECONDS_MAX = 600.0

_log = logging.getLogger(__name__)


class Puller:
    """Looks at ``source`` now and then, and has the instance serve what it names.

    A snapshot that the instance refused is not asked for again until the source names another one. One that cannot be
    had, because it is damaged or still being written, is tried again, ever more rarely up to every ten minutes. An
    operator who activates another snapshot is not overruled while this runs: only a new name at the source counts.
    """

    def __init__(
        self,
        source: SnapshotSource,
        changes: SnapshotChanges,
        *,
        is_canary: bool = False,
        poll_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._changes = changes
        self._is_canary = is_canary
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._settled_id: str | None = None
        """What the source named when it was last served, or refused for good."""
        self._failed_id: str | None = None
        self._retry_seconds = poll_seconds
        self._retry_at = 0.0

    async def follow(self) -> None:
        """Follow the source until cancelled."""
        self._settled_id = await asyncio.to_thread(self._changes.store.current_id)
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 - drivers of object storage raise what they like
                _log.warning("pulling snapshots failed: %s", error)
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> str | None:
        """Look once; return the id of the snapshot that serves because of it, None where nothing changed.

        Raises:
            Exception: whatever the source, or the store, or the instance raises; it will be tried again.
        """
        snapshot_id = await asyncio.to_thread(self._source.wanted_id, is_canary=self._is_canary)
        if snapshot_id is None or snapshot_id == self._settled_id or self._is_put_off(snapshot_id):
            return None
        try:
            if await asyncio.to_thread(self._source.pull, snapshot_id, self._changes.store):
                _log.info("pulled snapshot %s", snapshot_id)
            await self._changes.activate(snapshot_id)
        except ActivationRefusedError as error:
            self._settled_id = snapshot_id
            _log.error("%s", error)
            return None
        except Exception:
            self._put_off(snapshot_id)
            raise
        self._settled_id = snapshot_id
        return snapshot_id

    def _is_put_off(self, snapshot_id: str) -> bool:
        return snapshot_id == self._failed_id and self._clock() < self._retry_at

    def _put_off(self, snapshot_id: str) -> None:
        doubled = min(2 * self._retry_seconds, RETRY_SECONDS_MAX)
        self._retry_seconds = doubled if snapshot_id == self._failed_id else self._poll_seconds
        self._retry_at = self._clock() + self._retry_seconds
        self._failed_id = snapshot_id
