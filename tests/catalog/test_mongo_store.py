"""What only MongoDB has: ids of its types, indexes, other layouts. What all stores share is in the contract suite."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from mongo_catalogs import catalog_at, config_of, passing
from mongod import MongoServer
from pymongo import MongoClient

from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import HistoryEntry
from annserve.domain.deadline import Deadline
from annserve.domain.errors import (
    CatalogUnavailableError,
    DeadlineExceededError,
    FieldNotIndexedError,
    InputError,
    InvalidArgumentError,
)
from annserve.domain.filter import Equals, Exists, Range

OBJECT_ID = "65f000000000000000000001"


@pytest.fixture
def raw(mongod: MongoServer, database_name: str) -> Any:
    """The database behind the store."""
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        yield client[database_name]


@pytest.mark.parametrize(
    ("id_type", "stored", "id_", "others"),
    [
        ("string", "7", "7", ["7 ", "8"]),
        ("integer", 7, "7", ["07", "+7", "7.0", "seven", "9" * 30, "-0"]),
        ("integer", 7.0, "7", ["7.0"]),
        ("integer", -(2**63), str(-(2**63)), [str(-(2**63) - 1)]),
        ("object_id", ObjectId(OBJECT_ID), OBJECT_ID, [OBJECT_ID.upper(), "x"]),
    ],
)
@pytest.mark.parametrize("id_field", ["_id", "sku", "keys.shop"])
async def test_item_is_known_by_one_id_of_the_configured_type(
    mongod: MongoServer,
    database_name: str,
    raw: Any,
    id_type: str,
    stored: object,
    id_: str,
    others: list[str],
    id_field: str,
) -> None:
    outer, _, inner = id_field.partition(".")
    raw["items"].insert_one({outer: {inner: stored} if inner else stored, "price": 3})
    config = config_of(database_name, items={"id_type": id_type, "id_field": id_field})
    async with catalog_at(mongod.uri, config) as catalog:
        await catalog.ensure_indexes()
        price = catalog.schema.fields["price"]

        assert await catalog.select([id_, *others], fields=[price]) == {id_: {"price": (3.0,)}}
        assert await passing(catalog, None) == {id_}
        assert await passing(catalog, Equals(price, 3.0)) == {id_}
        assert await catalog.delete(others) == 0
        await catalog.upsert([(id_, {"price": 4, "_id": "not this", "origin": {"country": "F"}})])
        assert await catalog.select([id_], fields=[price]) == {id_: {"price": (4.0,)}}
        assert raw["items"].count_documents({}) == 1
        assert await catalog.delete([id_]) == 1


async def test_documents_without_a_usable_id_never_surface(mongod: MongoServer, database_name: str, raw: Any) -> None:
    raw["items"].insert_many(
        [{"_id": id_, "price": 1} for id_ in (7, "a\nb", "x" * 129, "", {"a": 1}, ObjectId(), "good")]
    )
    async with catalog_at(mongod.uri, config_of(database_name, unindexed_fields="warn")) as catalog:
        assert await passing(catalog, None) == {"good"}
        assert await passing(catalog, Equals(catalog.schema.fields["price"], 1.0)) == {"good"}
        assert set(await catalog.select(["7", "a\nb", "x" * 129, "", "good"])) == {"good"}


async def test_dates_beyond_all_years_do_not_break_reading(mongod: MongoServer, database_name: str, raw: Any) -> None:
    raw["items"].insert_one({"_id": "a", "released": DatetimeMS(2**62)})
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        released = catalog.schema.fields["released"]
        await catalog.ensure_indexes()

        assert await catalog.select(["a"], fields=[released]) == {"a": {"released": (2**62,)}}
        assert await passing(catalog, Range(released, 0)) == {"a"}


async def test_filter_without_an_index_is_refused_until_there_is_one(mongod: MongoServer, database_name: str) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        price = catalog.schema.fields["price"]
        assert await passing(catalog, Equals(price, 1.0)) == set(), "nothing to read is no reason to refuse"
        await catalog.upsert([("a", {"price": 1})])
        with pytest.raises(FieldNotIndexedError, match="price"):
            await passing(catalog, Equals(price, 1.0))

        created = await catalog.ensure_indexes()

        assert len(created) == len(catalog.schema.fields)
        assert await catalog.ensure_indexes() == []
        assert await passing(catalog, Equals(price, 1.0)) == {"a"}
        assert await passing(catalog, Exists(price)) == {"a"}


async def test_filter_without_an_index_is_warned_of_once_where_settings_allow_it(
    mongod: MongoServer, database_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name, unindexed_fields="warn")) as catalog:
        await catalog.upsert([("a", {"price": 1})])
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                assert await passing(catalog, Equals(catalog.schema.fields["price"], 1.0)) == {"a"}

    assert [record.name for record in caplog.records] == ["annserve.catalog.mongo_indexes"]


async def test_candidates_are_not_looked_up_without_an_index_of_their_ids(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    config = config_of(database_name, items={"id_field": "sku"})
    async with catalog_at(mongod.uri, config) as catalog:
        raw["items"].insert_one({"sku": "a"})
        with pytest.raises(FieldNotIndexedError, match="sku"):
            await catalog.select(["a"])
    async with catalog_at(mongod.uri, config) as catalog:
        raw["items"].create_index([("sku", -1), ("other", 1)])

        assert set(await catalog.select(["a"])) == {"a"}, "any index that begins with the id will do"


async def test_two_documents_of_one_id_keep_the_index_from_being_made(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    raw["items"].insert_many([{"sku": "a"}, {"sku": "a"}])
    async with catalog_at(mongod.uri, config_of(database_name, items={"id_field": "sku"})) as catalog:
        with pytest.raises(InputError, match="sku"):
            await catalog.ensure_indexes()


async def test_filter_is_answered_from_its_index_alone(mongod: MongoServer, database_name: str, raw: Any) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        await catalog.ensure_indexes()
        await catalog.upsert((str(number), {"price": number}) for number in range(100))
    plan = raw["items"].find({"price": {"$lt": 5.0}}, {"_id": 1}).explain()["executionStats"]

    assert plan["nReturned"] == 5
    assert plan["totalDocsExamined"] == 0


@pytest.mark.parametrize("user_id_type", ["string", "integer"])
@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("documents", {}),
        ("documents", {"user_field": "who", "entries_field": "past"}),
        ("events", {"user_field": "who", "item_field": "what", "event_field": "how", "time_field": "at"}),
    ],
)
async def test_histories_of_every_layout_give_the_newest_oldest_first(
    mongod: MongoServer, database_name: str, raw: Any, layout: str, names: dict[str, str], user_id_type: str
) -> None:
    histories = {"layout": layout, "entries_max": 5, "user_id_type": user_id_type, "item_id_type": "integer", **names}
    async with catalog_at(mongod.uri, config_of(database_name, histories=histories)) as catalog:
        await catalog.ensure_indexes()
        entries = [HistoryEntry(item_id=str(number), event="liked", time_ms=1_000 + number) for number in range(8)]
        for late in (entries[3:], entries[:3]):
            await catalog.add_history("7", late)
        await catalog.add_history("8", entries[:1])

        assert await catalog.history("7", 3) == entries[5:]
        assert await catalog.history("7", 100) == entries[3:]
        assert await catalog.history("7", 0) == []
        assert await catalog.history("nobody", 3) == []
        assert await catalog.erase_history("7") == (5 if layout == "documents" else 8)
        assert await catalog.history("7", 3) == []
        assert await catalog.history("8", 3) == entries[:1]
        assert await catalog.erase_history("7") == 0
    assert raw["histories"].count_documents({}) == 1


async def test_history_entries_of_another_shape_are_passed_over(
    mongod: MongoServer, database_name: str, raw: Any
) -> None:
    good = {"item_id": "a", "time": DatetimeMS(5)}
    odd = [3, None, {}, {**good, "item_id": 3}, {**good, "time": "x"}, {**good, "event": 1}, {**good, "item_id": "\n"}]
    raw["histories"].insert_many([{"_id": "u", "entries": [*odd, good]}, {"_id": "v", "entries": "x"}, {"_id": "w"}])
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        assert await catalog.history("u", 100) == [HistoryEntry(item_id="a", event="viewed", time_ms=5)]
        assert await catalog.history("v", 100) == []
        assert await catalog.history("w", 100) == []


@pytest.mark.parametrize(
    ("item_id", "document", "message"),
    [("", {}, "no item id"), ("a", {"n": 2**64}, "'a'"), ("a", {"$x": 1}, "'a'"), ("a", {"x": object()}, "'a'")],
)
async def test_item_that_cannot_be_stored_is_named(
    mongod: MongoServer, database_name: str, item_id: str, document: dict[str, object], message: str
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        with pytest.raises(InputError, match=message):
            await catalog.upsert([(item_id, document)])


async def test_drift_counts_what_is_missing_and_what_is_of_another_type(
    mongod: MongoServer, database_name: str
) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        await catalog.upsert([("a", {"price": 1, "tags": ["x"]}), ("b", {"price": "1"}), ("c", {})])

        drift = {field.field: (field.missing, field.other_type, field.examples) for field in await catalog.drift()}

    assert drift == {
        "price": (1, 1, ("b",)),
        "tags": (2, 0, ()),
        "country": (3, 0, ()),
        "released": (3, 0, ()),
    }


async def test_look_up_past_its_deadline_is_not_begun(mongod: MongoServer, database_name: str) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        await catalog.select(["a"])
        calls = catalog.counters.calls
        with pytest.raises(DeadlineExceededError):
            await catalog.select(["a"], deadline=Deadline.after(0.001))

        assert catalog.counters.calls == calls


async def test_more_candidates_than_one_look_up_takes_are_refused(mongod: MongoServer, database_name: str) -> None:
    async with catalog_at(mongod.uri, config_of(database_name)) as catalog:
        with pytest.raises(InvalidArgumentError):
            await catalog.select([str(number) for number in range(2_001)])


async def test_many_look_ups_at_once_take_their_turns(mongod: MongoServer, database_name: str) -> None:
    async with catalog_at(mongod.uri, config_of(database_name, pool_size=2)) as catalog:
        await catalog.upsert((str(number), {"price": number}) for number in range(50))

        answers = await asyncio.gather(*(catalog.select([str(number)]) for number in range(50)))

    assert [set(answer) for answer in answers] == [{str(number)} for number in range(50)]


@pytest.mark.parametrize(
    "uri", ["mongodb://u:secret@", "http://secret", "mongodb://h:secret", "mongodb://h/?tls=secret"]
)
def test_address_that_is_none_is_refused_without_repeating_it(uri: str, database_name: str) -> None:
    with pytest.raises(InputError) as refused:
        MongoCatalog(uri, config_of(database_name))

    assert "secret" not in refused.value.message


async def test_refused_credentials_are_unavailability_without_a_word_of_them(
    mongod: MongoServer, database_name: str
) -> None:
    uri = mongod.uri.replace("mongodb://", "mongodb://user:secret@")
    async with catalog_at(uri, config_of(database_name)) as catalog:
        with pytest.raises(CatalogUnavailableError) as refused:
            await catalog.select(["a"])

    assert "secret" not in repr(refused.value)
    assert "user" not in refused.value.message
    assert "code 18" in refused.value.message
