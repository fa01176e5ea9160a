"""Fresh items in MongoDB, a document each, followed by the collection's change stream: every instance sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np
from pymongo import DeleteOne, ReadPreference, ReturnDocument, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from annserve.catalog.config import ItemsConfig
from annserve.catalog.mongo_changes import MongoChanges
from annserve.catalog.mongo_connection import Json, Lane, MongoConnection
from annserve.domain.catalog import ChangesLostError, ChangesUnsupportedError
from annserve.domain.fresh import FreshBatch, FreshItem, StoredItem

COLLECTION = "fresh_items"
NUMBERS = "fresh_numbers"
"""Holds one document: which number the next new item gets."""
POLL_SECONDS = 0.5
"""How often it is looked for what was written, where the server tells of no changes."""

_LATE_MS = 10_000
"""How much earlier than it became visible something may say that it was written: clocks differ, writes take time."""
_FIELDS = ("_id", "number", "written_ms", "vector", "snapshot_id", "liked_by", "popularity")
_READ_SECONDS = 30.0


class MongoFreshStore:
    """The collection `COLLECTION` of the catalogue's database; implements `domain.fresh.FreshStore`.

    One event loop uses it, that of ``connection``: a connection of its own would knock at a server that is down as
    often again.
    """

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        self._items, self._numbers = map(self._settled, (COLLECTION, NUMBERS))
        self._changes = MongoChanges(self._connection, self._items, ItemsConfig(collection=COLLECTION), _FIELDS)

    async def write(self, items: Sequence[FreshItem]) -> None:
        """Keep the last word on items of different ids."""
        await self._connection.ask(lambda _: self._write(items), lane=Lane.BULK, primary=True)

    async def all(self) -> Sequence[StoredItem]:
        """Return the last word on every item, by number."""
        return await self._found({})

    async def follow(self) -> AsyncGenerator[FreshBatch, None]:
        """Yield all there is, and from then on what is written."""
        try:
            # From the first sequence on the stream tells of everything, so what is read after it leaves no gap.
            await anext(self._changes)
            yield FreshBatch(await self.all(), is_all=True)
            async for changes in self._changes:
                # What is forgotten is part of a snapshot: nothing changes for those who know it.
                documents = [change.document for change in changes if change.document is not None]
                if documents:
                    yield FreshBatch([_stored(document) for document in documents])
        except ChangesLostError:
            self._changes = MongoChanges(self._connection, self._items, ItemsConfig(collection=COLLECTION), _FIELDS)
            return
        except ChangesUnsupportedError:
            pass
        async for batch in self._poll():
            yield batch

    async def forget(self, items: Sequence[StoredItem]) -> None:
        """Drop what is kept of items on which nothing has been written since."""
        deletions = [DeleteOne({"_id": one.item.item_id, "written_ms": one.written_ms}) for one in items]
        if deletions:
            await self._connection.ask(
                lambda _: self._items.bulk_write(deletions, ordered=False), lane=Lane.BULK, primary=True
            )

    async def close(self) -> None:
        """Follow no longer; the connection is somebody else's."""
        await self._changes.aclose()

    async def _write(self, items: Sequence[FreshItem]) -> None:
        # Those that are there keep theirs: to ask for them first would not be faster, and they may go meanwhile.
        numbers = await self._new_numbers(len(items))
        written_ms = time.time_ns() // 1_000_000
        writes = [_upsert(item, written_ms, number) for item, number in zip(items, numbers, strict=True)]
        await self._items.bulk_write(writes, ordered=False)

    async def _new_numbers(self, count: int) -> range:
        after: Any = await self._numbers.find_one_and_update(
            {"_id": COLLECTION}, {"$inc": {"next": count}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        return range(after["next"] - count, after["next"])

    def _settled(self, name: str) -> AsyncCollection[Json]:
        # Change streams tell of what a majority has; what is acknowledged must be told.
        return self._connection.database[name].with_options(
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
        )

    async def _found(self, filter_: Mapping[str, Any]) -> list[StoredItem]:
        async def found(_: int) -> list[Json]:
            return [document async for document in self._items.find(filter_, batch_size=1_000)]

        documents = await self._connection.ask(found, lane=Lane.BULK, primary=True, seconds=_READ_SECONDS)
        return sorted(map(_stored, documents), key=lambda item: item.number)

    async def _poll(self) -> AsyncGenerator[FreshBatch, None]:
        seen = {item.item.item_id: item for item in await self.all()}
        yield FreshBatch(list(seen.values()), is_all=True)
        while True:
            await asyncio.sleep(POLL_SECONDS)
            since = max((item.written_ms for item in seen.values()), default=0) - _LATE_MS
            news = [
                item
                for item in await self._found({"written_ms": {"$gte": since}})
                if item.item.item_id not in seen or seen[item.item.item_id].written_ms != item.written_ms
            ]
            seen.update((item.item.item_id, item) for item in news)
            if news:
                yield FreshBatch(news)


def _upsert(item: FreshItem, written_ms: int, number: int) -> UpdateOne:
    document: Json = {"_id": item.item_id, "written_ms": written_ms}
    if item.vector is not None:
        document |= {"vector": item.vector.astype("<f4").tobytes(), "snapshot_id": item.snapshot_id}
    if item.liked_by_user_ids:
        document["liked_by"] = list(item.liked_by_user_ids)
    if not item.is_deleted:
        document["popularity"] = item.popularity
    # Whoever was first gave the number, also where two write a new item at once.
    kept = {"number": {"$ifNull": ["$number", number]}}
    return UpdateOne(
        {"_id": item.item_id}, [{"$replaceWith": {"$mergeObjects": [{"$literal": document}, kept]}}], upsert=True
    )


def _stored(document: Mapping[str, Any]) -> StoredItem:
    vector = document.get("vector")
    return StoredItem(
        item=FreshItem(
            item_id=document["_id"],
            vector=None if vector is None else np.frombuffer(vector, "<f4").astype(np.float32),
            snapshot_id=document.get("snapshot_id", ""),
            liked_by_user_ids=tuple(document.get("liked_by", ())),
            popularity=document.get("popularity", 0.0),
        ),
        number=document["number"],
        written_ms=document["written_ms"],
    )
