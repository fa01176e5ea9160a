"""The keeper's process: it follows the catalogue for all workers, writes their shared cache, serves AdminService."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from annserve.catalog.file_fresh import FileFreshStore
from annserve.catalog.mongo_store import MongoCatalog
from annserve.cli.catalog_source import CatalogSource, catalog_source, keeper_settings_of
from annserve.cli.child_program import begun
from annserve.cli.event_source import erasure_store_of, event_store_of
from annserve.cli.placement_source import placement_source, schema_of
from annserve.cli.securing import is_reflected, security_of
from annserve.cli.supervised_instance import SupervisedInstance
from annserve.domain.catalog import CatalogStore
from annserve.domain.errors import AnnserveError, InputError
from annserve.keeper.erasures import ErasureFollower
from annserve.keeper.event_upkeep import keep_up
from annserve.keeper.fresh_follower import FreshFollower
from annserve.keeper.fresh_view import FreshView
from annserve.keeper.hub import KeeperHub
from annserve.keeper.placement_follower import PlacementFollower
from annserve.service.admin_server import AdminServer, AdminSettings
from annserve.service.admin_servicer import Operated
from annserve.service.cache_admin import WriterCacheAdmin
from annserve.service.keeper_metrics import follow_cache, follow_keepers
from annserve.service.metrics import Metrics, share_metrics
from annserve.service.process_metrics import follow_process
from annserve.service.pulling import Puller
from annserve.service.snapshot_changes import SnapshotChanges
from annserve.service.stored_fresh_items import StoredFreshItems
from annserve.service.user_eraser import UserEraser
from annserve.service.warming import told_of
from annserve.settings import Settings
from annserve.snapshot import layout
from annserve.snapshot.ids import IdIndex
from annserve.snapshot.pull import SnapshotSource
from annserve.snapshot.store import SnapshotStore
from annserve.supervisor.attendance import attend_keeper
from annserve.supervisor.board import Board
from annserve.supervisor.control import ControlClient
from annserve.supervisor.orders import KeeperOrders

_log = logging.getLogger(__name__)


def main() -> None:
    """Be the keeper until the supervisor has it end."""
    orders, settings = begun(KeeperOrders, "keeper")
    try:
        asyncio.run(_keep(orders, settings))
    except InputError as error:
        # What was right when the instance began may have been changed since: its owner has to know that, not where.
        sys.stderr.write(f"annserve: the keeper cannot start: {error}\n")
        sys.exit(1)
    # Everything is closed. To take the interpreter apart costs a third of a second of a processor, and on a machine
    # that has none to spare more than the two seconds that the supervisor waits.
    logging.shutdown()
    os._exit(0)


async def _keep(orders: KeeperOrders, settings: Settings) -> None:
    loop, leaving = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leaving.set)
    runtime = orders.runtime_folder
    snapshots = SnapshotStore(settings.snapshots)
    async with AsyncExitStack() as stack:
        attending = asyncio.create_task(attend_keeper(orders, Board(orders.board_fd)))
        stack.callback(attending.cancel)
        cache: WriterCacheAdmin | None = None
        if settings.shared_cache:
            cache = WriterCacheAdmin(runtime / "cache", settings.shared_cache_bytes)
            cache.start()
            stack.callback(cache.stop)
        source = catalog_source(None, None)
        store = None if source is None else source.open()
        if store is not None:
            stack.push_async_callback(store.close)
        # A file is in the memory of each worker, which follows it by itself.
        followed = store if source is not None and source.is_mongodb else None
        hub = KeeperHub(followed, partial(_items_of, snapshots), keeper_settings_of(settings))
        if cache is not None and settings.warm_keys:
            hub.on_hello(lambda _: [told_of(cache.hot_requests(settings.warm_keys))])
        open_view = partial(_view_of, snapshots)
        fresh_items = store.fresh_store() if isinstance(store, MongoCatalog) else FileFreshStore(settings.fresh_items)
        stack.push_async_callback(fresh_items.close)
        follower = FreshFollower(fresh_items, hub, open_view, snapshots.history)
        follower.start()
        stack.push_async_callback(follower.stop)
        events = event_store_of(settings, source, store)
        stack.push_async_callback(events.close)
        erasures = erasure_store_of(settings, source, store)
        stack.push_async_callback(erasures.close)
        erased = ErasureFollower(erasures, hub)
        erased.start()
        stack.push_async_callback(erased.stop)
        upkeep = asyncio.create_task(keep_up(events, settings.events_keep_days))
        stack.callback(upkeep.cancel)
        placement_follower = _placement_follower(settings, source, store, hub, runtime, stack)
        await hub.start(runtime / "keeper.sock")
        stack.push_async_callback(hub.stop)
        share_metrics(runtime / "metrics", "keeper")
        metrics = Metrics()
        follow_process(metrics, "keeper")
        follow_keepers(metrics, hub)
        if placement_follower is not None:
            metrics.follow_fields(
                "annserve_placement_reloads", "Reading placements, by outcome.", "outcome", placement_follower.counters
            )
        counting = [asyncio.create_task(metrics.keep_published())]
        if cache is not None:
            counting.append(asyncio.create_task(follow_cache(metrics, cache)))
        for task in counting:
            stack.callback(task.cancel)
        security = security_of(settings)
        security.follow_in(metrics)
        instance = SupervisedInstance(ControlClient(runtime / "control.sock"))
        changes = SnapshotChanges(instance, snapshots)
        if settings.pull_from is not None:
            pulling = asyncio.create_task(_puller(settings, changes).follow())
            stack.callback(pulling.cancel)
        operated = Operated(
            instance=instance,
            changes=changes,
            items=StoredFreshItems(
                fresh_items, instance, open_view, lambda: follower.added_ids, settings.fresh_items_max
            ),
            cache=cache,
            histories=store,
            eraser=UserEraser(erasures, events, store, erased.tell),
            placements=placement_follower,
        )
        admin = AdminServer(
            AdminSettings(
                address=settings.admin_address,
                allow_remote=settings.admin_allow_remote,
                reflection=is_reflected(settings, settings.admin_address),
                security=security,
            ),
            operated,
        )
        told = asyncio.create_task(leaving.wait())
        ends: set[asyncio.Task[Any]] = {told}
        try:
            _log.info("AdminService is on %s", await admin.start())
            stack.push_async_callback(admin.stop)
            ends.add(asyncio.create_task(admin.wait_until_lost()))
        except AnnserveError as error:
            # Calls are answered all the same; who starts an instance looks before that the port is free.
            _log.error("no AdminService: %s", error)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        if not leaving.is_set():
            # The supervisor starts another keeper.
            raise ConnectionAbortedError("gRPC has stopped serving AdminService by itself")


def _placement_follower(
    settings: Settings,
    source: CatalogSource | None,
    store: CatalogStore | None,
    hub: KeeperHub,
    runtime: Path,
    stack: AsyncExitStack,
) -> PlacementFollower | None:
    placements = placement_source(settings, store)
    if placements is None:
        return None
    stack.push_async_callback(placements.close)
    follower = PlacementFollower(placements, schema_of(source), hub, runtime / "placements.json")
    follower.start()
    stack.push_async_callback(follower.stop)
    return follower


def _puller(settings: Settings, changes: SnapshotChanges) -> Puller:
    assert settings.pull_from is not None  # noqa: S101  (the caller has looked)
    return Puller(
        SnapshotSource(settings.pull_from.get_secret_value()),
        changes,
        is_canary=settings.pull_canary,
        poll_seconds=settings.pull_poll_ms / 1_000,
    )


def _view_of(snapshots: SnapshotStore, snapshot_id: str) -> FreshView:
    return FreshView(snapshots.path(snapshot_id))


def _items_of(snapshots: SnapshotStore, snapshot_id: str) -> IdIndex:
    return IdIndex(snapshots.path(snapshot_id) / layout.ITEM_IDS)


if __name__ == "__main__":
    main()
