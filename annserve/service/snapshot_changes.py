"""Changes of what an instance serves: one at a time, each to its end, and ``CURRENT`` written last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from annserve.domain.errors import InstanceRefusedError, NoSnapshotError, UnknownSnapshotError
from annserve.service.admin import Instance
from annserve.snapshot.store import SnapshotStore

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class SnapshotChanges:
    """Has ``instance`` serve snapshots of ``store``. Only what serves becomes the live one, which starts next time.

    A change that has begun goes on when whoever asked for it is cancelled, so that nothing is left half done. All
    methods raise what `Instance.activate` does.
    """

    def __init__(self, instance: Instance, store: SnapshotStore) -> None:
        self.store = store
        self._instance = instance
        self._changing = asyncio.Lock()
        self._begun: set[asyncio.Task[Any]] = set()

    async def activate(self, snapshot_id: str) -> None:
        """Serve a snapshot, then make it the live one.

        Raises:
            UnknownSnapshotError: it is not here.
            InstanceRefusedError: it serves, but ``CURRENT`` cannot be written.
        """
        if snapshot_id not in await asyncio.to_thread(self.store.ids):
            raise UnknownSnapshotError(snapshot_id)

        async def change() -> None:
            await self._instance.activate(snapshot_id)
            await _pointed(lambda: self.store.activate(snapshot_id))

        await self._to_its_end(change)

    async def roll_back(self) -> str:
        """Serve the snapshot that was live before, make it the live one again, and return its id; as `activate`."""

        async def change() -> str:
            try:
                snapshot_id = await asyncio.to_thread(self.store.earlier_id)
            except NoSnapshotError as error:
                raise UnknownSnapshotError("") from error
            await self._instance.activate(snapshot_id)
            return await _pointed(self.store.roll_back)

        return await self._to_its_end(change)

    async def reload(self) -> None:
        """Serve the live snapshot with settings read anew."""
        await self._to_its_end(self._instance.reload)

    async def _to_its_end(self, change: Callable[[], Awaitable[Result]]) -> Result:
        async def alone() -> Result:
            async with self._changing:
                return await change()

        task = asyncio.create_task(alone())
        self._begun.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._begun.discard(task)
        # Looked at here, so that the error of a change nobody waits for is not reported a second time, as forgotten.
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("a change of snapshots failed: %s", error)


async def _pointed(point: Callable[[], Result]) -> Result:
    """Return what ``point`` does: it writes ``CURRENT``, which the folder of a container may not permit."""
    try:
        return await asyncio.to_thread(point)
    except OSError as error:
        problem = f"the snapshot serves, but CURRENT cannot be written, so that it will not after a restart: {error}"
        raise InstanceRefusedError("CURRENT_NOT_WRITTEN", problem) from error
