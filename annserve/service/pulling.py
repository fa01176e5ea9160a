"""Following a source of snapshots: what it names is fetched, served, and then live."""

from __future__ import annotations

import asyncio
import logging

from annserve.domain.errors import ActivationRefusedError
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.snapshot.pull import SnapshotSource

RETRY_SECONDS_MAX = 600.0

_log = logging.getLogger(__name__)


class Puller:
    """Looks at ``source`` now and then, and has the instance serve what it names.

    A snapshot that the instance refused is not asked for again until the source names another one. Whatever else goes
    wrong, a source that is away or a snapshot still being written, is tried again, ever more rarely up to every ten
    minutes. An operator who activates another snapshot is not overruled while this runs: only a new name at the source
    counts.
    """

    def __init__(
        self, source: SnapshotSource, changes: SnapshotChanges, *, is_canary: bool = False, poll_seconds: float = 10.0
    ) -> None:
        self._source = source
        self._changes = changes
        self._is_canary = is_canary
        self._poll_seconds = poll_seconds
        self._settled_id: str | None = None
        """What the source named when it was last served, or refused for good."""

    async def follow(self) -> None:
        """Follow the source until cancelled."""
        self._settled_id = await asyncio.to_thread(self._changes.store.current_id)
        wait_seconds = self._poll_seconds
        while True:
            try:
                await self.look()
                wait_seconds = self._poll_seconds
            except Exception as error:  # noqa: BLE001 - drivers of object storage raise what they like
                wait_seconds = min(2 * wait_seconds, max(RETRY_SECONDS_MAX, self._poll_seconds))
                _log.warning("pulling snapshots failed, next try in %.0f s: %s", wait_seconds, error)
            await asyncio.sleep(wait_seconds)

    async def look(self) -> str | None:
        """Look once; return the id of the snapshot that serves because of it, None where nothing changed."""
        snapshot_id = await asyncio.to_thread(self._source.wanted_id, is_canary=self._is_canary)
        if snapshot_id is None or snapshot_id == self._settled_id:
            return None
        if await asyncio.to_thread(self._source.pull, snapshot_id, self._changes.store):
            _log.info("pulled snapshot %s", snapshot_id)
        try:
            await self._changes.activate(snapshot_id)
        except ActivationRefusedError as error:
            self._settled_id = snapshot_id
            _log.error("%s", error)
            return None
        self._settled_id = snapshot_id
        return snapshot_id
