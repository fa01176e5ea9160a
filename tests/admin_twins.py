"""Twins of what AdminService operates on, and a server around them in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from annserve.catalog.file_erasures import FileErasureStore
from annserve.catalog.file_events import FileEventStore
from annserve.catalog.file_store import FileCatalog
from annserve.domain.catalog import Schema
from annserve.domain.errors import ActivationRefusedError, UnknownWorkerError
from annserve.domain.model import Model
from annserve.service.admin import (
    CacheStats,
    HotKey,
    InstanceStatus,
    Swap,
    UpsertedItem,
    Worker,
    WorkerState,
)
from annserve.service.admin_server import AdminServer, AdminSettings
from annserve.service.admin_servicer import Operated
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.service.user_eraser import UserEraser
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.store import SnapshotStore

WAIT_SECONDS = 10.0


class TwinInstance:
    """An instance that does what it is told, and remembers it."""

    def __init__(self, snapshot_id: str | None) -> None:
        self.snapshot_id = snapshot_id
        self.calls: list[tuple[object, ...]] = []
        self.error: Exception | None = None
        self.refused: dict[str, str] = {}
        """The problem of each snapshot that it will not serve."""
        self.gate: threading.Event | None = None
        """What an activation waits for, after it has set `entered`."""
        self.entered = threading.Event()
        self.draining = False
        self.last_swap: Swap | None = None
        self.slots = {0, 1}

    def _told(self, *call: object) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    async def status(self) -> InstanceStatus:
        self._told("status")
        return InstanceStatus(
            version="1.2.3",
            is_serving=not self.draining,
            is_draining=self.draining,
            snapshot_id=self.snapshot_id,
            loading_snapshot_id=None,
            wanted_worker_count=2,
            serving_worker_count=len(self.slots),
            started_at=1_700_000_000.5,
            last_swap=self.last_swap,
        )

    async def workers(self) -> Sequence[Worker]:
        self._told("workers")
        return [
            Worker(
                slot=slot,
                pid=100 + slot,
                state=WorkerState.SERVING if slot else WorkerState.STARTING,
                snapshot_id=self.snapshot_id or "",
                call_count=3 * slot,
                heartbeat_age_seconds=0.25,
            )
            for slot in sorted(self.slots)
        ]

    async def activate(self, snapshot_id: str) -> None:
        self._told("activate", snapshot_id)
        self.entered.set()
        if self.gate is not None:
            assert await asyncio.to_thread(self.gate.wait, WAIT_SECONDS)
        if problem := self.refused.get(snapshot_id):
            raise ActivationRefusedError(snapshot_id, "SNAPSHOT_RECALL", problem)
        self.snapshot_id = snapshot_id

    async def reload(self) -> None:
        self._told("reload")

    async def scale(self, worker_count: int) -> None:
        self._told("scale", worker_count)
        self.slots = set(range(worker_count))

    async def restart_worker(self, slot: int) -> None:
        self._told("restart_worker", slot)
        if slot not in self.slots:
            raise UnknownWorkerError(slot)

    async def drain(self) -> None:
        self._told("drain")
        self.draining = True

    async def undrain(self) -> None:
        self._told("undrain")
        self.draining = False


class TwinItems:
    """Fresh items, and the error that each call ends with."""

    def __init__(self) -> None:
        self.items: dict[str, UpsertedItem] = {}
        self.deleted: list[str] = []
        self.error: Exception | None = None

    async def upsert(self, items: Sequence[UpsertedItem]) -> None:
        if self.error is not None:
            raise self.error
        self.items |= {item.item_id: item for item in items}

    async def delete(self, item_ids: Sequence[str]) -> None:
        self.deleted += item_ids


class TwinCache:
    """A cache with figures of its own."""

    def __init__(self) -> None:
        self.entry_count = 12

    async def stats(self) -> CacheStats:
        return CacheStats(
            entry_count=self.entry_count,
            size_bytes=34_000,
            size_bytes_max=64 << 20,
            worker_hit_count=60,
            instance_hit_count=30,
            miss_count=10,
            dropped_count=1,
        )

    async def flush(self) -> None:
        self.entry_count = 0

    async def hot_keys(self, count: int) -> Sequence[HotKey]:
        return [HotKey(item_id=f"상품-{place}", share=0.3 / (place + 1), hit_ratio=0.9) for place in range(count)]


class Admin:
    """The twins, and where the server around them is."""

    def __init__(self, snapshots: SnapshotStore, histories_path: Path) -> None:
        self.folder = histories_path.parent
        self.instance = TwinInstance(snapshots.current_id())
        self.snapshots = snapshots
        self.items = TwinItems()
        self.keeps_items = True
        self.cache: TwinCache | None = TwinCache()
        items_path = histories_path.with_name("items.jsonl")
        self.histories: FileCatalog | None = FileCatalog(items_path, Schema({}), histories_path, create=True)
        self.address = ""

    def operated(self) -> Operated:
        """Return the twins as they are now."""
        return Operated(
            instance=self.instance,
            changes=SnapshotChanges(self.instance, self.snapshots),
            items=self.items if self.keeps_items else None,
            cache=self.cache,
            histories=self.histories,
            eraser=self.eraser(),
        )

    def eraser(self) -> UserEraser:
        """Return what erases users of the histories, and of files beside them."""
        erasures = FileErasureStore(self.folder / "erased_users.jsonl")
        return UserEraser(erasures, FileEventStore(self.folder / "events.jsonl"), self.histories, settle_seconds=0.0)

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve the twins, as they are now, on a free port."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()

        async def start() -> AdminServer:
            server = AdminServer(AdminSettings(address="127.0.0.1:0"), self.operated())
            self.address = await server.start()
            return server

        async def stop(server: AdminServer) -> None:
            await server.stop()
            if self.histories is not None:
                await self.histories.close()
            await loop.shutdown_default_executor()

        server = asyncio.run_coroutine_threadsafe(start(), loop).result(WAIT_SECONDS)
        try:
            yield self.address
        finally:
            asyncio.run_coroutine_threadsafe(stop(server), loop).result(WAIT_SECONDS)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(WAIT_SECONDS)
            loop.close()


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until ``holds``; fails when it does not come about."""
    ticking = threading.Event()
    for _ in range(round(WAIT_SECONDS / 0.01)):
        if holds():
            return
        ticking.wait(0.01)
    raise AssertionError("it did not come about")


def tiny_model() -> Model:
    """Return a model of a few items."""
    random = np.random.default_rng(3)
    return Model(
        item_ids=[f"상품-{number}" for number in range(12)],
        item_vectors=random.normal(size=(12, 4)).astype(np.float32),
        user_ids=["user-0", "user-1"],
        user_vectors=random.normal(size=(2, 4)).astype(np.float32),
        popularity=random.random(12).astype(np.float32),
        popularity_weight=0.3,
        likeness_exponent=0.5,
        recent_items_max=100,
        fold_in=None,
        histories=None,
        trainer="random",
    )


def three_snapshots(root: Path) -> SnapshotStore:
    """Return a store of three snapshots, the newest of them live."""
    store = SnapshotStore(root)
    for _ in range(3):
        build_snapshot(tiny_model(), store, threads=1)
    return store
