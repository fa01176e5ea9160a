"""A hub over a twin, and workers linked to it, in one event loop."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from catalog_twin import CatalogTwin, Rows

from annserve.cache.bitmaps import BYTES_MAX, BitmapCache
from annserve.keeper.hub import KeeperHub
from annserve.keeper.keeper import Keeper
from annserve.keeper.link_client import KeeperLink
from annserve.keeper.publication import Publication
from annserve.keeper.settings import KeeperSettings

QUICK = KeeperSettings(retry_seconds=0.0, reconnect_seconds=0.001, beat_seconds=0.05, uses_seconds=0.01)


@dataclass(kw_only=True, eq=False)
class Worker:
    """A link, its bitmaps, and what it was told."""

    bitmaps: BitmapCache
    link: KeeperLink
    changed: list[str]
    losses: list[int]


@dataclass(kw_only=True, eq=False)
class Linked:
    """A hub that takes workers."""

    path: Path
    twin: CatalogTwin
    hub: KeeperHub
    rows: Rows
    settings: KeeperSettings
    bytes_max: int
    stack: AsyncExitStack
    workers: list[Worker] = field(default_factory=list)

    async def join(
        self, snapshot_id: str = "s1", settings: KeeperSettings | None = None, bytes_max: int = BYTES_MAX
    ) -> Worker:
        bitmaps, changed, losses = BitmapCache(bytes_max), list[str](), list[int]()
        link = KeeperLink(
            self.path,
            snapshot_id,
            bitmaps,
            [changed.extend],
            [lambda: losses.append(1)],
            slot=len(self.workers),
            settings=settings or self.settings,
        )
        worker = Worker(bitmaps=bitmaps, link=link, changed=changed, losses=losses)
        self.workers.append(worker)
        link.start()
        self.stack.push_async_callback(link.stop)
        return worker

    def publication(self, snapshot_id: str = "s1") -> Publication:
        return self.hub._publications[snapshot_id]

    def keeper(self, snapshot_id: str = "s1") -> Keeper:
        return self.hub.keepers[snapshot_id]

    async def replace_hub(self) -> None:
        """Have the keeper die and another one come."""
        await self.hub.stop()
        self.hub = KeeperHub(self.twin, lambda _: self.rows, self.settings, self.bytes_max)
        await self.hub.start(self.path)

    async def stop(self) -> None:
        await self.hub.stop()

    async def settled(self, snapshot_id: str = "s1") -> None:
        """Return when every change is told to every worker and nothing is being read."""
        await self.until(lambda: self._is_settled(snapshot_id))

    def _is_settled(self, snapshot_id: str) -> bool:
        publication = self.hub._publications.get(snapshot_id)
        if publication is None or publication.keeper is None or not self.twin.streams:
            return False
        return (
            not self.twin.streams[-1].lost
            and self.twin.streams[-1].drained_at == len(self.twin.log)
            and not self.twin.reading
            and not publication.keeper._builds._under_way
            and publication.bitmaps.present is not None
            and not publication.bitmaps.stale
            and all(
                worker.link.connected
                and worker.bitmaps.present is not None
                and not worker.bitmaps.stale
                and not worker.link._asked
                and self._has_heard(worker, publication)
                for worker in self.workers
            )
        )

    @staticmethod
    def _has_heard(worker: Worker, publication: Publication) -> bool:
        """Whether every bitmap of the worker has its original's version."""
        for leaf in (None, *worker.bitmaps.leaves()):
            copy, original = worker.bitmaps.peek(leaf), publication.bitmaps.peek(leaf)
            if copy is None or original is None or copy.version != original.version:
                return False
        return True

    async def connected(self, *workers: Worker) -> None:
        await self.until(lambda: all(worker.link.connected for worker in workers))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0)

    def assert_true(self) -> None:
        """Compare every bitmap of every worker with a fresh evaluation."""
        for worker in self.workers:
            for leaf in (None, *worker.bitmaps.leaves()):
                found = worker.bitmaps.peek(leaf)
                assert found is not None
                assert set(found.bitmap) == self.twin.rows_passing(leaf, self.rows), leaf


@asynccontextmanager
async def linked(
    twin: CatalogTwin,
    rows: Rows | None = None,
    settings: KeeperSettings = QUICK,
    workers: int = 1,
    bytes_max: int = BYTES_MAX,
) -> AsyncIterator[Linked]:
    rows = Rows.numbered(8) if rows is None else rows
    # The path of a socket may be no longer than 107 bytes, and pytest's folders are.
    with tempfile.TemporaryDirectory(prefix="annserve-") as folder:
        path = Path(folder) / "keeper.sock"
        hub = KeeperHub(twin, lambda _: rows, settings, bytes_max)
        async with AsyncExitStack() as stack:
            under_test = Linked(
                path=path, twin=twin, hub=hub, rows=rows, settings=settings, bytes_max=bytes_max, stack=stack
            )
            await hub.start(path)
            stack.push_async_callback(under_test.stop)
            for _ in range(workers):
                await under_test.join()
            yield under_test
