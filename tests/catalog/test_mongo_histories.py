"""The histories of all users are read as they are stored, in either layout."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Int64
from mongo_catalogs import catalog_at, config_of
from mongod import MongoServer
from pymongo import MongoClient

from annserve.domain.catalog import HistoryEntry, StoredEntry

MANY = 1_203
AT = datetime(2026, 1, 1, tzinfo=UTC)
AT_MS = 1_767_225_600_000


def histories_config(database_name: str, layout: str, **more: Any) -> Any:
    return config_of(database_name, histories={"layout": layout, **more})


async def everything(uri: str, config: Any) -> list[StoredEntry]:
    async with catalog_at(uri, config) as catalog:
        return [entry async for chunk in catalog.histories() for entry in chunk]


@pytest.mark.parametrize("layout", ["documents", "events"])
async def test_every_entry_of_every_user_is_told_once(mongod: MongoServer, database_name: str, layout: str) -> None:
    config = histories_config(database_name, layout)
    async with catalog_at(mongod.uri, config) as catalog:
        for user in range(3):
            entries = [HistoryEntry(item_id=f"i{number}", time_ms=AT_MS + number) for number in range(MANY // 3)]
            await catalog.add_history(f"u{user}", entries)
        await catalog.add_history("사용자", [HistoryEntry(item_id="a", event="bought", time_ms=AT_MS)])

    found = await everything(mongod.uri, config)

    assert len(found) == len({(entry.user_id, entry.item_id) for entry in found}) == MANY + 1
    assert StoredEntry(user_id="u2", item_id="i7", event="viewed", time_ms=AT_MS + 7) in found
    assert StoredEntry(user_id="사용자", item_id="a", event="bought", time_ms=AT_MS) in found


async def test_many_documents_come_in_many_chunks(mongod: MongoServer, database_name: str) -> None:
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client[database_name]["histories"].insert_many(
            [{"_id": f"u{user}", "entries": [{"item_id": "a", "time": AT}]} for user in range(MANY)]
        )

    found = await everything(mongod.uri, histories_config(database_name, "documents"))

    assert {entry.user_id for entry in found} == {f"u{user}" for user in range(MANY)}
    assert len(found) == MANY


@pytest.mark.parametrize("layout", ["documents", "events"])
async def test_what_is_not_as_configured_is_told_as_missing(
    mongod: MongoServer, database_name: str, layout: str
) -> None:
    config = histories_config(database_name, layout, user_field="user", user_id_type="integer", item_field="thing")
    entries = [{"thing": "a", "time": AT}, {"thing": 5, "event": 1, "time": "now"}]
    documents: list[dict[str, Any]] = (
        [{"user": Int64(7), "entries": [*entries, "x"]}, {"user": "seven", "entries": entries[:1]}, {"user": Int64(8)}]
        if layout == "documents"
        else [*({"user": Int64(7), **entry} for entry in [*entries, {}]), {"user": "seven", **entries[0]}]
    )
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client[database_name]["histories"].insert_many(documents)

    found = await everything(mongod.uri, config)

    def entry(user_id: str | None, item_id: str | None, event: str | None, time_ms: int | None) -> StoredEntry:
        return StoredEntry(user_id=user_id, item_id=item_id, event=event, time_ms=time_ms)

    assert found == [
        entry("7", "a", "viewed", AT_MS),
        entry("7", None, None, None),
        entry("7", None, "viewed", None),
        entry(None, "a", "viewed", AT_MS),
    ]
