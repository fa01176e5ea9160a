"""Fresh items from their store to a worker, and out of it once snapshots have learnt of them."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checked_traffic import item_id, small_model

from annserve.cache.bitmaps import BitmapCache
from annserve.catalog.file_fresh import FileFreshStore
from annserve.domain.arrays import Vectors
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.fresh import FreshBatch, FreshItem, StoredItem
from annserve.domain.model import FoldInConstants
from annserve.engine.fresh_state import FreshState
from annserve.keeper import fresh_follower
from annserve.keeper.fresh_codec import TOPIC
from annserve.keeper.fresh_follower import FreshFollower
from annserve.keeper.fresh_news import FreshNewsReader
from annserve.keeper.fresh_view import FreshView
from annserve.keeper.hub import KeeperHub
from annserve.keeper.link_client import KeeperLink
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_snapshot
from annserve.snapshot.store import SnapshotStore

ITEMS, DIMENSION = 300, 16


@pytest.fixture
def snapshots(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def built(snapshots: SnapshotStore, seed: int) -> str:
    return build_snapshot(small_model(seed, ITEMS), snapshots, threads=1).snapshot_id


def liked(name: str, *users: int) -> FreshItem:
    return FreshItem(item_id=name, liked_by_user_ids=tuple(f"user-{user}" for user in users), popularity=1.0)


async def test_a_worker_is_told_what_there_is_and_what_comes(snapshots: SnapshotStore, short: Path) -> None:
    snapshot = load_snapshot(snapshots.path(built(snapshots, 1)))
    store = FileFreshStore(short / "fresh.jsonl")
    await store.write([liked("early", 1, 2)])
    hub = KeeperHub(None, lambda _: snapshot.items)
    follower = FreshFollower(store, hub, lambda id_: FreshView(snapshots.path(id_)))
    follower.start()
    await hub.start(short / "hub.sock")
    fresh = FreshState(snapshot)
    link, reader = KeeperLink(short / "hub.sock", snapshot.id, BitmapCache()), FreshNewsReader(fresh)
    link.subscribe(TOPIC, reader.hear)
    link.start()
    try:
        await reader.wait()
        row = fresh.items.row("early")
        assert row is not None
        assert row >= ITEMS
        await store.write([liked("late", 3), FreshItem(item_id=item_id(5)), FreshItem(item_id="early")])
        async with asyncio.timeout(10):
            while fresh.items.row("late") is None:
                await asyncio.sleep(0.01)
        assert fresh.items.row("early") is None
        assert fresh.items.row(item_id(5)) is None
        assert len(fresh.items) == ITEMS
    finally:
        await link.stop()
        await follower.stop()
        await hub.stop()
        await store.close()


async def test_what_two_snapshots_have_learnt_is_dropped(snapshots: SnapshotStore, tmp_path: Path) -> None:
    store = FileFreshStore(tmp_path / "fresh.jsonl")
    await store.write([liked(item_id(5), 1), liked("unlearnt", 1), FreshItem(item_id="nobody")])
    await store.write([FreshItem(item_id=item_id(6))])
    await asyncio.sleep(1.0)  # A manifest tells the second.
    first = built(snapshots, 1)
    await store.write([liked(item_id(7), 1)])
    await asyncio.sleep(1.0)
    second = built(snapshots, 2)
    views = {id_: FreshView(snapshots.path(id_)) for id_ in (first, second)}
    hub = KeeperHub(None, lambda _: {})  # type: ignore[arg-type,return-value]  # nobody comes
    follower = FreshFollower(store, hub, views.__getitem__, lambda: (second, first))
    follower.start()
    try:
        async with asyncio.timeout(10):
            while follower._items is None:
                await asyncio.sleep(0.01)
        await follower.tidy()
        # One is in neither, one was said anew after the first was built, and what is deleted stays so in all to come.
        left = {stored.item.item_id for stored in await store.all()}
        assert left == {"unlearnt", item_id(7), item_id(6), "nobody"}
    finally:
        await follower.stop()
        await store.close()


def test_an_item_has_the_vector_that_training_would_give_it(tmp_path: Path) -> None:
    snapshots = SnapshotStore(tmp_path)
    constants = FoldInConstants(
        gram_weight=1.0, item_weight=9.0, target=10.0, regularization=5.0, regularization_per_item=0.0
    )
    model = replace(small_model(1, ITEMS), fold_in=constants)
    view = FreshView(build_snapshot(model, snapshots, threads=1).path)
    users = np.asarray(model.user_vectors, np.float64)
    found = view.liked_vector(["user-1", "user-2", "nobody", "user-1"])
    liking = users[[1, 2]]
    system = users.T @ users + 9.0 * liking.T @ liking + 5.0 * np.eye(DIMENSION)
    expected = np.linalg.solve(system, 10.0 * liking.sum(axis=0))
    assert found is not None
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-4, atol=1e-6)
    assert view.liked_vector(["nobody"]) is None


def test_without_constants_it_is_what_explains_the_users_best(tmp_path: Path) -> None:
    model = small_model(1, ITEMS)
    view = FreshView(build_snapshot(model, SnapshotStore(tmp_path), threads=1).path)
    users = np.asarray(model.user_vectors, np.float64)
    wanted = np.zeros(len(users))
    wanted[[3, 4]] = 1.0
    expected, *_ = np.linalg.lstsq(users, wanted, rcond=None)
    found = view.liked_vector(["user-3", "user-4"])
    assert found is not None
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "vector", [np.zeros(DIMENSION), np.full(DIMENSION, 3e38), np.full(DIMENSION, 1e-45), np.ones(3)]
)
def test_what_has_no_place_is_as_if_nothing_had_been_said(snapshots: SnapshotStore, vector: Vectors) -> None:
    view = FreshView(snapshots.path(built(snapshots, 1)))
    vector = vector.astype(np.float32)
    item = FreshItem(item_id="new", vector=vector, snapshot_id=view.snapshot_id)
    (change,) = view.changes([StoredItem(item=item, number=0, written_ms=1 << 50)])
    assert not view.has_place_for(vector)
    assert change.vector is None
    assert not change.is_deleted


class AwayItems(FileFreshStore):
    """Cannot be followed at first."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.count = 0

    async def follow(self) -> AsyncGenerator[FreshBatch, None]:
        self.count += 1
        if self.count < 5:
            raise CatalogUnavailableError("no server of it is reachable")
        async for batch in super().follow():
            yield batch


async def test_an_outage_is_told_of_once_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_follower, "RETRY_SECONDS", 0.001)
    store = AwayItems(tmp_path / "fresh.jsonl")
    hub = KeeperHub(None, lambda _: {})  # type: ignore[arg-type,return-value]  # nobody comes
    follower = FreshFollower(store, hub, lambda _: None)  # type: ignore[arg-type,return-value]
    with caplog.at_level(logging.INFO):
        follower.start()
        async with asyncio.timeout(10):
            while follower._items is None:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        await follower.stop()
        await store.close()

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
