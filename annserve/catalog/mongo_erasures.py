"""Erasures in MongoDB, a document a user who was erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymongo import ASCENDING, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from annserve.catalog.mongo_connection import Json, Lane, MongoConnection
from annserve.domain.erasure import Erasure

COLLECTION: Final = "erased_users"


class MongoErasureStore:
    """The collection `COLLECTION` of the catalogue's database; implements `domain.erasure.ErasureStore`."""

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        collection: AsyncCollection[Json] = connection.database[COLLECTION]
        self._erased = collection.with_options(
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )

    async def add(self, erasure: Erasure) -> None:
        """Remember ``erasure``."""

        async def add(_: int) -> None:
            await self._erased.create_index([("erased_ms", ASCENDING)])
            last = {"$max": {"erased_ms": erasure.erased_ms}}
            await self._erased.update_one({"_id": erasure.digest}, last, upsert=True)

        await self._connection.ask(add, lane=Lane.WRITE, primary=True)

    async def since(self, erased_ms: int) -> Sequence[Erasure]:
        """Return the erasures of ``erased_ms`` or later."""

        async def found(_: int) -> list[Json]:
            return await self._erased.find({"erased_ms": {"$gte": erased_ms}}).to_list()

        documents = await self._connection.ask(found, primary=True)
        return [Erasure(digest=str(one["_id"]), erased_ms=int(one["erased_ms"])) for one in documents]

    async def close(self) -> None:
        """Nothing is held: the connection is somebody else's."""
