"""The keeper behind a real MongoDB."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from typing import Any

from catalog_twin import CHEAP, COLOUR, DEAR, PRICE, RED, Rows
from keep_catalogue import config_of
from mongod import MongoServer
from pymongo import AsyncMongoClient

from annserve.cache.bitmaps import BitmapCache
from annserve.catalog.evaluate import matches
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import Document
from annserve.domain.filter import In, Leaf, Range
from annserve.keeper.keeper import Keeper

ITEM_COUNT = 2_000
LEAVES: tuple[Leaf, ...] = (CHEAP, DEAR, RED, In(COLOUR, ("blue", "green")), *(Range(PRICE, at) for at in range(1, 7)))
UPDATES = 500


def document_of(chance: random.Random) -> Document:
    return {"price": chance.randint(0, 10), "colour": chance.choice(["red", "blue", "green"])}


async def test_bitmaps_follow_mongodb_within_100_ms_and_end_equal_to_a_fresh_evaluation(
    mongod: MongoServer, database_name: str
) -> None:
    chance = random.Random(3)
    store, rows, bitmaps = MongoCatalog(mongod.uri, config_of(database_name)), Rows.numbered(ITEM_COUNT), BitmapCache()
    documents: dict[str, Document] = {item_id: document_of(chance) for item_id in rows}
    await store.upsert(documents.items())
    await store.ensure_indexes()
    keeper = Keeper(store, rows, bitmaps)
    keeper.start()
    seconds: list[float] = []
    async with AsyncMongoClient[dict[str, Any]](mongod.uri) as client:
        items = client[database_name]["items"]
        await until(lambda: bitmaps.present is not None and bitmaps.synced_at > -math.inf)
        # Half of the leaves are there before the first write, half are read while it rains.
        await asyncio.gather(*map(keeper.build, LEAVES[:5]))
        cheap = bitmaps.peek(CHEAP)
        assert cheap is not None
        for number in range(UPDATES):
            item_id = f"i{chance.randrange(ITEM_COUNT)}"
            before = documents[item_id]
            documents[item_id] = {"price": 9 if matches(CHEAP, before) else 1, "colour": before["colour"]}
            passes = matches(CHEAP, documents[item_id])
            sent_at = time.monotonic()
            await items.update_one({"_id": item_id}, {"$set": {"price": documents[item_id]["price"]}})
            while (rows[item_id] in cheap.bitmap) != passes:
                await asyncio.sleep(0.0005)
            seconds.append(time.monotonic() - sent_at)
            if number % 100 == 50:
                keeper.build(LEAVES[5 + number // 100])
        gone = chance.sample(sorted(documents), 50)
        await items.delete_many({"_id": {"$in": gone}})
        for item_id in gone:
            del documents[item_id]
        told = time.monotonic() + 0.2
        await until(lambda: bitmaps.synced_at > told)

    try:
        assert set(bitmaps.leaves()) == set(LEAVES)
        for leaf in (None, *LEAVES):
            found = bitmaps.peek(leaf)
            assert found is not None
            expected = {rows[id_] for id_, document in documents.items() if leaf is None or matches(leaf, document)}
            assert set(found.bitmap) == expected, leaf
        p50, p99 = statistics.median(seconds), sorted(seconds)[UPDATES * 99 // 100]
        print(f"update sent to bit flipped: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")  # noqa: T201  (a figure)
        assert p50 < 0.1
    finally:
        await keeper.stop()
        await store.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.002)
