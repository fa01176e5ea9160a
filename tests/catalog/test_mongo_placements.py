"""Placements in MongoDB: followed by change stream, and by looking again where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from mongo_catalogs import config_of
from mongod import Mongod, MongoServer
from pymongo import MongoClient

from annserve.catalog.mongo_placements import COLLECTION
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import Schema
from annserve.domain.placements import TEXT_BYTES_MAX, PlacementText
from annserve.placements.loading import compiled

WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def alone() -> Iterator[Mongod]:
    """A server that tells of no changes."""
    with Mongod(replica_set=False) as server:
        yield server


async def told(changes: AsyncIterator[Sequence[PlacementText]], names: set[str]) -> dict[str, str]:
    """Return the first set told that has ``names``."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            texts = await anext(changes)
            if {text.name for text in texts} == names:
                return {text.name: text.text for text in texts}


@pytest.mark.parametrize("kind", ["replica set", "alone"])
async def test_documents_are_placements_and_each_change_is_told(
    kind: str, mongod: MongoServer, alone: Mongod, database_name: str
) -> None:
    uri = mongod.uri if kind == "replica set" else alone.uri
    catalog = MongoCatalog(uri, config_of(database_name))
    source = catalog.placement_source()
    with MongoClient[dict[str, Any]](uri) as client:
        documents = client[database_name][COLLECTION]
        documents.insert_one({"_id": "home", "yaml": "mode: personalize", "author": "somebody"})
        try:
            async with aclosing(source.follow()) as changes:
                assert await told(changes, {"home"}) == {"home": "mode: personalize"}

                documents.insert_one({"_id": "cart", "yaml": "mode: similar"})
                assert await told(changes, {"home", "cart"}) == {"home": "mode: personalize", "cart": "mode: similar"}

                documents.update_one({"_id": "cart"}, {"$set": {"yaml": "mode: related"}})
                assert (await told(changes, {"home", "cart"}))["cart"] == "mode: related"

                documents.delete_one({"_id": "home"})
                assert await told(changes, {"cart"}) == {"cart": "mode: related"}
                assert [text.name for text in await source.read()] == ["cart"]
        finally:
            await source.close()
            await catalog.close()


async def test_document_without_a_text_is_refused_by_name(mongod: MongoServer, database_name: str) -> None:
    catalog = MongoCatalog(mongod.uri, config_of(database_name))
    source = catalog.placement_source()
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client[database_name][COLLECTION].insert_many([{"_id": "home", "yaml": 5}, {"_id": 7}])
    try:
        problems = compiled(await source.read(), Schema())[1]
    finally:
        await source.close()
        await catalog.close()

    assert {problem.file for problem in problems} == {"placements/home", "placements/7"}


async def test_a_document_that_is_too_large_is_refused_and_not_read_to_its_end(
    mongod: MongoServer, database_name: str
) -> None:
    catalog = MongoCatalog(mongod.uri, config_of(database_name))
    source = catalog.placement_source()
    longest = "mode: personalize\n".ljust(TEXT_BYTES_MAX, "#")
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        documents = client[database_name][COLLECTION]
        documents.insert_many(
            [{"_id": name, "yaml": "mode: personalize\n# " + "가" * 4_000_000} for name in ("a", "b")]
        )
        documents.insert_many([{"_id": "c", "yaml": longest}, {"_id": "d", "yaml": longest + "#"}])
        documents.insert_one({"_id": "e" * 1_000_000, "yaml": ["mode: similar"]})
    try:
        texts = await source.read()
        placements, problems = compiled(texts, Schema())
    finally:
        await source.close()
        await catalog.close()

    assert max(len(text.text) for text in texts) == TEXT_BYTES_MAX + 1
    assert sorted(placements) == ["c"]
    assert {problem.file for problem in problems if "must be at most 64 KiB" in problem.text} == {
        "placements/a",
        "placements/b",
        "placements/d",
    }
    assert max(len(str(problem)) for problem in problems) < 1_000
