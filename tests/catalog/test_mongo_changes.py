from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from mongo_catalogs import catalog_at, config_of, lost, told
from mongod import Mongod, MongoServer
from pymongo import MongoClient
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.collection import AsyncCollection

from annserve.catalog.evaluate import matches
from annserve.domain.catalog import Change, ChangesUnsupportedError
from annserve.domain.filter import Equals


@pytest.fixture
def raw(mongod: MongoServer, database_name: str) -> Iterator[Any]:
    """The database behind the store."""
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        yield client[database_name]


async def test_every_write_is_told_in_order_with_the_declared_fields_only(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        changes = catalog.changes()
        assert not await anext(changes), "begun, and nothing told"
        items = raw["items"]
        items.insert_one({"_id": "a", "price": 1, "blob": "x", "origin": {"country": "F", "town": "P"}})
        items.insert_one({"_id": 7, "price": 1})
        items.update_one({"_id": "a"}, {"$set": {"price": 2}})

        first, second = await told(changes, 2)
        assert [first.item_id, second.item_id] == ["a", "a"], "an item without an id of ours is none"
        assert second.document == {"_id": "a", "price": 2, "origin": {"country": "F"}}
        assert matches(Equals(catalog.schema.fields["country"], "F"), second.document)
        items.replace_one({"_id": "a"}, {})
        assert await told(changes, 1) == [Change(item_id="a", document={"_id": "a"})]
        items.delete_one({"_id": "a"})
        assert await told(changes, 1) == [Change(item_id="a", document=None)]
        assert not await anext(changes)


async def test_item_changed_and_deleted_since_is_told_as_deleted(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    raw["items"].insert_one({"_id": "a", "price": 1})
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        changes = catalog.changes()
        await anext(changes)
        raw["items"].update_one({"_id": "a"}, {"$set": {"price": 2}})
        raw["items"].delete_one({"_id": "a"})

        assert (await told(changes, 2))[-1] == Change(item_id="a", document=None)


async def test_all_of_a_flood_is_told_and_then_that_it_is_over(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        changes = catalog.changes()
        await anext(changes)
        raw["items"].insert_many({"_id": str(number), "price": number} for number in range(3_000))

        seen = await told(changes, 3_000)

        assert [change.item_id for change in seen] == [str(number) for number in range(3_000)]
        assert not await anext(changes)


@pytest.mark.parametrize("how", ["drop", "rename", "dropDatabase"])
async def test_end_of_the_collection_is_the_loss_of_its_changes(
    mongod: MongoServer, database_name: str, raw: Any, how: str
) -> None:
    raw["items"].insert_one({"_id": "a"})
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        changes = catalog.changes()
        await anext(changes)
        match how:
            case "drop":
                raw["items"].drop()
            case "rename":
                raw["items"].rename("others")
            case _:
                raw.client.drop_database(database_name)

        assert await lost(changes)


async def test_deletion_is_told_by_an_id_that_is_not_the_documents_own(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name, items={"id_field": "sku"})) as catalog:
        assert "items: pre-images" in await catalog.ensure_indexes()
        assert await catalog.ensure_indexes() == []
        changes = catalog.changes()
        await anext(changes)
        await catalog.upsert([("a", {"price": 1}), ("b", {})])
        raw["items"].update_one({"sku": "b"}, {"$set": {"sku": "c"}})
        await catalog.delete(["a"])

        seen = await told(changes, 5)

    assert [(change.item_id, change.document is None) for change in seen] == [
        ("a", False),
        ("b", False),
        ("b", True),
        ("c", False),
        ("a", True),
    ]


async def test_deletion_that_nothing_can_be_made_of_is_a_loss(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name, items={"id_field": "sku"})) as catalog:
        raw["items"].insert_one({"sku": "a"})
        changes = catalog.changes()
        await anext(changes)
        raw["items"].delete_one({"sku": "a"})

        assert await lost(changes)


async def test_server_that_is_no_replica_set_has_no_changes_and_does_all_else(database_name: str) -> None:
    with Mongod(replica_set=False) as standalone:
        async with catalog_at(standalone.uri, config_of(database_name)) as catalog:
            await catalog.ensure_indexes()
            await catalog.upsert([("a", {"price": 1})])

            assert set(await catalog.select(["a"])) == {"a"}
            assert [chunk async for chunk in catalog.matching(None)] == [["a"]]
            with pytest.raises(ChangesUnsupportedError):
                await anext(catalog.changes())


async def test_caller_who_leaves_while_waiting_loses_no_change(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        changes = catalog.changes()
        await anext(changes)
        seen: list[Change] = []
        for number in range(60):
            raw["items"].insert_many([{"_id": f"{number}.{part}"} for part in range(5)])
            try:
                async with asyncio.timeout(number / 10_000):
                    seen += await anext(changes)
            except TimeoutError:
                pass
        seen += await told(changes, 300 - len(seen))

    assert [change.item_id for change in seen] == [f"{number}.{part}" for number in range(60) for part in range(5)]


class Deaf:
    """Has a method of the driver's swallow a cancellation, as `asyncio.wait_for` of Python 3.11 does now and then."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.entered = asyncio.Event()
        self._real: Callable[..., Awaitable[Any]] = getattr(owner, name)
        deaf = self

        async def swallowing(itself: Any, *arguments: Any, **options: Any) -> Any:
            deaf.entered.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.2)
            return await deaf._real(itself, *arguments, **options)

        patch.setattr(owner, name, swallowing)


async def test_follower_who_is_cancelled_ends_although_the_driver_swallows_it_while_it_opens(
    mongod: MongoServer, database_name: str, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(monkeypatch, AsyncCollection, "watch")
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        changes = catalog.changes()
        for _ in range(2):
            deaf.entered.clear()
            following = asyncio.ensure_future(anext(changes))
            await asyncio.wait([asyncio.ensure_future(deaf.entered.wait())], timeout=0.1)
            following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await following

        assert not await anext(changes), "opened by now"
        raw["items"].insert_one({"_id": "a"})
        assert await told(changes, 1) == [Change(item_id="a", document={"_id": "a"})]


async def test_follower_who_is_cancelled_ends_although_the_driver_swallows_it_while_it_closes(
    mongod: MongoServer, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = Deaf(monkeypatch, AsyncChangeStream, "close")
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        changes = catalog.changes()
        await anext(changes)
        closing = asyncio.ensure_future(changes.aclose())
        await deaf.entered.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
