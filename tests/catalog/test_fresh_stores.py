"""Fresh items are kept, numbered and told of, whichever store keeps them: one contract for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from mongo_catalogs import config_of
from mongod import Mongod, MongoServer

from annserve.catalog.file_fresh import FileFreshStore
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.fresh import FreshBatch, FreshItem, FreshStore, StoredItem

WAIT_SECONDS = 10.0


class Stores:
    """Stores that keep the same items, as processes of several instances have them."""

    def __init__(self, kind: str, folder: Path, uri: str, database: str) -> None:
        self._where = kind, folder, uri, database
        self.opened: list[FreshStore] = []
        self.catalogs: list[MongoCatalog] = []

    def open(self) -> FreshStore:
        kind, folder, uri, database = self._where
        store: FreshStore
        if kind == "file":
            store = FileFreshStore(folder / "fresh.jsonl")
        else:
            catalog = MongoCatalog(uri, config_of(database))
            self.catalogs.append(catalog)
            store = catalog.fresh_store()
        self.opened.append(store)
        return store


@pytest.fixture(params=["file", "mongodb"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, mongod: MongoServer, database_name: str
) -> AsyncIterator[Stores]:
    stores = Stores(request.param, tmp_path, mongod.uri, database_name)
    yield stores
    for store in stores.opened:
        await store.close()
    for catalog in stores.catalogs:
        await catalog.close()


def vector(*values: float) -> FreshItem:
    return FreshItem(item_id="상품", vector=np.array(values, np.float32), snapshot_id="s1", popularity=0.5)


def liked(item_id: str, *users: str) -> FreshItem:
    return FreshItem(item_id=item_id, liked_by_user_ids=users)


def shown(stored: StoredItem) -> tuple[object, ...]:
    item = stored.item
    values = None if item.vector is None else item.vector.tolist()
    return item.item_id, values, item.snapshot_id, item.liked_by_user_ids, item.popularity, item.is_deleted


async def next_batch(batches: AsyncIterator[FreshBatch]) -> FreshBatch:
    async with asyncio.timeout(WAIT_SECONDS):
        return await anext(batches)


async def test_the_last_word_on_each_item_is_kept_with_the_number_it_had_first(stores: Stores) -> None:
    store = stores.open()
    await store.write([vector(1.0, -2.5), liked("b", "u1", "u2")])
    first = {one.item.item_id: one.number for one in await store.all()}
    await store.write([liked("c"), FreshItem(item_id="b")])

    kept = await stores.open().all()

    assert [shown(one) for one in kept if one.item.item_id != "c"] == [
        ("상품", [1.0, -2.5], "s1", (), 0.5, False),
        ("b", None, "", (), 0.0, True),
    ]
    numbers = {one.item.item_id: one.number for one in kept}
    assert {name: numbers[name] for name in first} == first
    assert len(set(numbers.values())) == 3
    assert min(numbers.values()) >= 0


async def test_a_follower_has_all_there_is_and_then_what_others_write_in_order(stores: Stores) -> None:
    writer, follower = stores.open(), stores.open()
    await writer.write([liked("a", "u1")])
    async with aclosing(follower.follow()) as batches:
        begun = await next_batch(batches)
        assert begun.is_all
        assert [one.item.item_id for one in begun.items] == ["a"]

        await writer.write([liked("b", "u1")])
        await writer.write([FreshItem(item_id="a")])
        told: list[tuple[str, bool]] = []
        while len(told) < 2:
            batch = await next_batch(batches)
            assert not batch.is_all
            told += [(one.item.item_id, one.item.is_deleted) for one in batch.items]

    assert sorted(told) == [("a", True), ("b", False)]


async def test_what_was_written_since_is_not_forgotten_and_numbers_are_not_given_twice(stores: Stores) -> None:
    store = stores.open()
    await store.write([liked("a", "u1"), liked("b", "u1")])
    old = await store.all()
    await asyncio.sleep(0.002)  # Writings are told apart by the millisecond.
    await store.write([liked("b", "u2")])

    await store.forget(old)
    await store.write([liked("c", "u1")])

    kept = {one.item.item_id: one for one in await store.all()}
    assert set(kept) == {"b", "c"}
    assert kept["b"].item.liked_by_user_ids == ("u2",)
    assert kept["c"].number not in {one.number for one in old}


async def test_many_writers_at_once_lose_nothing_and_share_no_number(stores: Stores) -> None:
    writers = [stores.open() for _ in range(4)]

    await asyncio.gather(
        *(
            writer.write([liked(f"{name}-{turn}", "u"), liked("common", f"u{name}")])
            for name, writer in enumerate(writers)
            for turn in range(5)
        )
    )

    kept = await writers[0].all()
    assert {one.item.item_id for one in kept} == {f"{name}-{turn}" for name in range(4) for turn in range(5)} | {
        "common"
    }
    assert len({one.number for one in kept}) == len(kept)


async def test_half_a_line_is_passed_over_and_what_follows_is_not_lost_with_it(tmp_path: Path) -> None:
    store = FileFreshStore(tmp_path / "fresh.jsonl")
    await store.write([liked("a", "u1")])
    with (tmp_path / "fresh.jsonl").open("ab") as file:
        file.write(b'{"item_id": "torn", "num')

    await store.write([liked("b", "u1")])

    assert {one.item.item_id for one in await store.all()} == {"a", "b"}


async def test_a_follower_of_a_file_that_is_replaced_begins_anew(tmp_path: Path) -> None:
    store = FileFreshStore(tmp_path / "fresh.jsonl")
    async with aclosing(store.follow()) as batches:
        assert (await next_batch(batches)).is_all
        await store.write([liked("a", "u1"), liked("b", "u1")])
        assert len((await next_batch(batches)).items) == 2
        await store.forget([one for one in await store.all() if one.item.item_id == "a"])
        again = await next_batch(batches)

    assert again.is_all
    assert [one.item.item_id for one in again.items] == ["b"]


async def test_where_changes_are_not_told_of_they_are_looked_for(tmp_path: Path) -> None:
    with Mongod(tmp_path / "data", replica_set=False) as server:
        catalog = MongoCatalog(server.uri, config_of("shop"))
        store = catalog.fresh_store()
        async with aclosing(store.follow()) as batches:
            assert (await next_batch(batches)).is_all
            await store.write([liked("a", "u1")])
            assert [one.item.item_id for one in (await next_batch(batches)).items] == ["a"]
        await store.close()
        await catalog.close()


async def test_without_a_server_nothing_is_kept_and_it_is_said() -> None:
    catalog = MongoCatalog("mongodb://127.0.0.1:1", config_of("shop"))
    store = catalog.fresh_store()

    with pytest.raises(CatalogUnavailableError):
        await store.write([liked("a", "u1")])
    await store.close()
    await catalog.close()
