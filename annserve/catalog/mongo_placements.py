"""Placements in MongoDB, a document each: its name as ``_id``, and its YAML."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

from annserve.catalog.config import ItemsConfig
from annserve.catalog.mongo_changes import MongoChanges
from annserve.catalog.mongo_connection import Json, Lane, MongoConnection
from annserve.domain.catalog import ChangesLostError, ChangesUnsupportedError
from annserve.domain.errors import InputError
from annserve.domain.placements import TEXT_BYTES_MAX, PlacementText

COLLECTION = "placements"
DOCUMENTS_MAX = 1_000
POLL_SECONDS = 0.5
"""How often they are read, where the server tells of no changes."""

_READ_SECONDS = 10.0
_NAME_MAX = 100
"""Characters of a name that are told: more than a placement may have."""
_BEGINNING = {"$substrCP": ["$yaml", 0, TEXT_BYTES_MAX + 1]}
# A document may have 16 MiB, and there may be a thousand: the server cuts what is refused anyway.
_YAML = {"$cond": [{"$eq": [{"$type": "$yaml"}, "string"]}, _BEGINNING, None]}


class MongoPlacements:
    """The collection `COLLECTION` of the catalogue's database; implements `domain.placements.PlacementSource`.

    One event loop uses it, that of ``connection``.
    """

    def __init__(self, connection: MongoConnection) -> None:
        self._connection = connection
        # Change streams tell of what a majority has, so that is read too.
        self._collection = connection.database[COLLECTION].with_options(
            read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self._changes = self._opened()

    async def read(self) -> Sequence[PlacementText]:
        """Return all there are now, by name."""

        async def found(_: int) -> list[Json]:
            cursor = self._collection.find({}, {"yaml": _YAML}).sort("_id", 1).limit(DOCUMENTS_MAX + 1)
            return [document async for document in cursor]

        documents = await self._connection.ask(found, lane=Lane.BULK, primary=True, seconds=_READ_SECONDS)
        if len(documents) > DOCUMENTS_MAX:
            raise InputError(f"{COLLECTION} has more than {DOCUMENTS_MAX:,} documents", collection=COLLECTION)
        return [_text_of(document) for document in documents]

    async def follow(self) -> AsyncGenerator[Sequence[PlacementText], None]:
        """Yield all there are, at once and again after each change."""
        try:
            # From the first sequence on the stream tells of everything, so what is read after it misses nothing.
            await anext(self._changes)
            yield await self.read()
            async for changes in self._changes:
                if changes:
                    yield await self.read()
        except ChangesLostError:
            self._changes = self._opened()
            return
        except ChangesUnsupportedError:
            pass
        told = None
        while True:
            texts = await self.read()
            if texts != told:
                told = texts
                yield texts
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """Follow no longer; the connection is somebody else's."""
        await self._changes.aclose()

    def _opened(self) -> MongoChanges:
        # What changed is read anew: of the stream the ids would do, and one field is the least it takes.
        return MongoChanges(self._connection, self._collection, ItemsConfig(collection=COLLECTION), ("_id",))


def _text_of(document: Json) -> PlacementText:
    name, text = str(document["_id"])[:_NAME_MAX], document.get("yaml")
    # One without a text says nothing, and is refused for it.
    return PlacementText(name=name, origin=f"{COLLECTION}/{name}", text=text if isinstance(text, str) else "")
