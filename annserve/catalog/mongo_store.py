"""The catalogue in MongoDB."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast
from weakref import WeakSet

import bson
from bson.errors import BSONError
from pymongo import ReadPreference, ReplaceOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.cursor import AsyncRawBatchCursor
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from annserve.catalog.config import CatalogConfig
from annserve.catalog.drift import DriftCount
from annserve.catalog.evaluate import found_at, metadata_of
from annserve.catalog.mongo_changes import MongoChanges
from annserve.catalog.mongo_compile import compile_filter
from annserve.catalog.mongo_connection import CODEC, Json, Lane, MongoConnection, StoreCounters
from annserve.catalog.mongo_erasures import MongoErasureStore
from annserve.catalog.mongo_events import MongoEventStore
from annserve.catalog.mongo_fresh import MongoFreshStore
from annserve.catalog.mongo_histories import histories_of
from annserve.catalog.mongo_ids import id_of, stored_id
from annserve.catalog.mongo_indexes import MongoIndexes
from annserve.catalog.mongo_placements import MongoPlacements
from annserve.domain.catalog import Document, FieldDrift, HistoryEntry, Metadata, Schema, StoredEntry
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import InputError, InvalidArgumentError
from annserve.domain.filter import Field, Filter, Leaf
from annserve.domain.ids import check_item_id
from annserve.domain.progress import Progress, no_progress

SELECT_MAX = 2_000
"""Ids of one `select`."""
CHUNK = 1_000
"""Documents of a batch, read or written: about half a millisecond of decoding ids, between two looks at other work."""


class MongoCatalog:
    """Items' metadata and users' histories in MongoDB; made in and for one event loop.

    Args:
        uri: Where MongoDB is; what it holds of credentials is never told on.
        config: What is where in it.

    Raises:
        InputError: ``uri`` is not an address.
    """

    def __init__(self, uri: str, config: CatalogConfig) -> None:
        mongo = self._mongo = config.mongodb
        self._config = mongo.items
        self._schema = config.declared()
        self._connection = MongoConnection(uri, mongo.database, mongo.pool_size, mongo.operation_timeout_ms / 1_000)
        self._items: AsyncCollection[Json] = self._connection.database[mongo.items.collection]
        # Change streams tell of what a majority has: a bitmap must not start from anything else, older or newer.
        self._settled = self._items.with_options(
            read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self._indexes = MongoIndexes(self._connection, mongo)
        self._histories = histories_of(self._connection, mongo.histories)
        self._followers: WeakSet[MongoChanges] = WeakSet()

    def fresh_store(self) -> MongoFreshStore:
        """Return the store of fresh items in the same database; to be closed before this."""
        return MongoFreshStore(self._connection)

    def event_store(self) -> MongoEventStore:
        """Return the store of events in the same database; to be closed before this."""
        return MongoEventStore(self._connection, self._mongo.events)

    def erasure_store(self) -> MongoErasureStore:
        """Return the store of erasures in the same database; to be closed before this."""
        return MongoErasureStore(self._connection)

    def placement_source(self) -> MongoPlacements:
        """Return the placements in the same database; to be closed before this."""
        return MongoPlacements(self._connection)

    @property
    def schema(self) -> Schema:
        """The declared fields."""
        return self._schema

    @property
    def available(self) -> bool:
        """Whether MongoDB is believed to answer."""
        return self._connection.available

    @property
    def counters(self) -> StoreCounters:
        """What was done so far."""
        return self._connection.counters

    async def matching(self, leaf: Leaf | None, deadline: Deadline = NO_DEADLINE) -> AsyncIterator[Sequence[str]]:
        """Yield the ids of all items that pass ``leaf``, or of all, in chunks; an id may come twice."""
        filter_ = {} if leaf is None else compile_filter(leaf)
        if leaf is not None:
            await self._indexes.check(leaf.field.name, filter_, deadline)
        async for documents in self._batches(filter_, [self._config.id_field], deadline):
            yield [item_id for document in documents if (item_id := self._id_of(document)) is not None]

    async def select(
        self,
        item_ids: Sequence[str],
        filter_: Filter | None = None,
        fields: Sequence[Field] = (),
        deadline: Deadline = NO_DEADLINE,
    ) -> Mapping[str, Metadata]:
        """Return, by id, the declared ``fields`` of those items that exist and pass ``filter_``."""
        if len(item_ids) > SELECT_MAX:
            raise InvalidArgumentError.of("item_ids", f"must be at most {SELECT_MAX}, got {len(item_ids)}")
        stored_ids = [stored for id_ in item_ids if (stored := stored_id(id_, self._config.id_type)) is not None]
        if not stored_ids:
            return {}
        if filter_ is not None:
            self._indexes.refuse_again(filter_)
        by_id = {self._config.id_field: {"$in": stored_ids}}
        cursor_filter = by_id if filter_ is None else {"$and": [by_id, compile_filter(filter_)]}
        projection = projection_of([self._config.id_field, *(field.path for field in fields)])
        hint = await self._indexes.id_hint(deadline)

        async def found(max_time_ms: int) -> list[bytes]:
            # A batch larger than the answer saves the round trip that says so.
            cursor = self._items.find_raw_batches(
                cursor_filter, projection, hint=hint, batch_size=len(stored_ids) + 1, max_time_ms=max_time_ms
            )
            return [cast("bytes", batch) async for batch in cursor]

        documents = itertools.chain.from_iterable(map(self._decoded, await self._connection.ask(found, deadline)))
        return {
            item_id: metadata_of(fields, document)
            for document in documents
            if (item_id := self._id_of(document)) is not None
        }

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        """Return the newest entries of a user, oldest first."""
        return await self._histories.read(user_id, newest, deadline)

    def histories(self) -> AsyncIterator[Sequence[StoredEntry]]:
        """Return the entries of all users' histories, in chunks and in no order."""
        return self._histories.all()

    async def add_history(
        self, user_id: str, entries: Sequence[HistoryEntry], deadline: Deadline = NO_DEADLINE
    ) -> None:
        """Add to a user's history."""
        await self._histories.add(user_id, entries, deadline)

    async def erase_history(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        """Forget a user, and return how many entries that were."""
        return await self._histories.erase(user_id, deadline)

    async def upsert(
        self, documents: Iterable[tuple[str, Document]], progress: Progress = no_progress, total: int | None = None
    ) -> int:
        """Write whole documents by item id, a thousand at a time, and return how many.

        Raises:
            InputError: an id is none, or MongoDB cannot hold a document.
        """
        written = 0
        for chunk in _chunks(documents):
            await self._write([self._replacement(item_id, document) for item_id, document in chunk], chunk)
            written += len(chunk)
            progress("writing items", written, total)
        return written

    async def delete(self, item_ids: Sequence[str]) -> int:
        """Delete items, and return how many there were."""
        stored_ids = [stored for id_ in item_ids if (stored := stored_id(id_, self._config.id_type)) is not None]
        deleted = 0
        for chunk in _chunks(stored_ids):
            deleted += await self._connection.ask(partial(self._deleted, chunk), lane=Lane.BULK, primary=True)
        return deleted

    def changes(self) -> MongoChanges:
        """Return the changes of items from the first sequence on."""
        paths = projection_of([self._config.id_field, *(field.path for field in self._schema.fields.values())])
        changes = MongoChanges(self._connection, self._items, self._config, [path for path in paths if paths[path]])
        self._followers.add(changes)
        return changes

    async def drift(self, progress: Progress = no_progress) -> Sequence[FieldDrift]:
        """Return how the documents differ from the declared fields."""
        paths = [self._config.id_field, *(field.path for field in self._schema.fields.values())]
        count, read = DriftCount(self._schema), 0
        async for documents in self._batches({}, paths):
            for document in documents:
                if (item_id := self._id_of(document)) is not None:
                    count.add(item_id, document)
            read += len(documents)
            progress("reading items", read, None)
        return count.fields()

    async def ensure_indexes(self) -> Sequence[str]:
        """Create the indexes that filters and histories need, and return the names of those that were not there."""
        return await self._indexes.ensure(self._schema.fields.values())

    async def close(self) -> None:
        """Disconnect."""
        for changes in list(self._followers):
            await changes.aclose()
        await self._connection.close()

    async def _batches(
        self, filter_: Json, paths: Sequence[str], deadline: Deadline = NO_DEADLINE
    ) -> AsyncIterator[list[Json]]:
        """Yield what passes ``filter_``, with ``paths`` only, batch by batch."""

        async def first(max_time_ms: int) -> tuple[AsyncRawBatchCursor[Json], bytes | None]:
            cursor = self._settled.find_raw_batches(
                filter_, projection_of(paths), batch_size=CHUNK, max_time_ms=max_time_ms
            )
            return cursor, await _next_batch(cursor)

        cursor, batch = await self._connection.ask(first, deadline, Lane.BULK, primary=True)
        ahead: asyncio.Task[bytes | None] | None = None
        try:
            while batch is not None:
                if cursor.alive:
                    # The server reads on while this batch is made use of.
                    following = self._connection.ask(lambda _: _next_batch(cursor), deadline, Lane.BULK, primary=True)
                    ahead = asyncio.create_task(following)
                    ahead.add_done_callback(_heard)  # Nobody may want it any more.
                yield self._decoded(batch)
                batch, ahead = (await ahead if ahead is not None else None), None
        finally:
            if ahead is not None:
                ahead.cancel()
            if cursor.alive:
                self._connection.abandon(cursor)

    def _decoded(self, batch: bytes) -> list[Json]:
        documents = bson.decode_all(batch, CODEC)
        self.counters.documents += len(documents)
        self.counters.bytes += len(batch)
        return documents

    def _id_of(self, document: Json) -> str | None:
        found = found_at(self._config.id_field, document)
        return id_of(found[0], self._config.id_type) if found else None

    def _replacement(self, item_id: str, document: Document) -> ReplaceOne[Json]:
        check_item_id(item_id)
        stored = stored_id(item_id, self._config.id_type)
        if stored is None:
            raise InputError(f"{item_id!r} is no item id of type {self._config.id_type}", item_id=item_id)
        rest = {name: value for name, value in document.items() if name != "_id"}
        return ReplaceOne({self._config.id_field: stored}, _with(rest, self._config.id_field, stored), upsert=True)

    async def _deleted(self, stored_ids: Sequence[object], _: int) -> int:
        result = await self._items.delete_many({self._config.id_field: {"$in": stored_ids}})
        return result.deleted_count

    async def _write(self, replacements: Sequence[ReplaceOne[Json]], chunk: Sequence[tuple[str, Document]]) -> None:
        async def write(_: int) -> None:
            try:
                await self._items.bulk_write(replacements, ordered=True)
            except BulkWriteError as error:
                failed = error.details["writeErrors"][:1]
                item_id = chunk[failed[0]["index"]][0] if failed else chunk[0][0]
                code = failed[0].get("code") if failed else None
                raise InputError(f"MongoDB refused item {item_id!r} (code {code})", item_id=item_id) from error
            except (BSONError, OverflowError, ValueError, TypeError) as error:
                raise InputError(f"items from {chunk[0][0]!r} on cannot be stored: {error}", error=error) from error

        await self._connection.ask(write, lane=Lane.BULK, primary=True)


async def _next_batch(cursor: AsyncRawBatchCursor[Json]) -> bytes | None:
    # The driver's types know only cursors of documents.
    return cast("bytes | None", await anext(cursor, None))


def projection_of(paths: Iterable[str]) -> dict[str, int]:
    """Return the projection to ``paths``, without those within another: MongoDB refuses to hear of both."""
    wanted = set(paths)
    kept = {
        path: 1 for path in sorted(wanted) if path.partition(".")[0] == path or path.partition(".")[0] not in wanted
    }
    return kept if "_id" in wanted else {"_id": 0, **kept}


def _with(document: Mapping[str, Any], path: str, value: object) -> Json:
    """Return ``document`` with ``value`` at ``path``."""
    first, _, second = path.partition(".")
    if not second:
        return {**document, first: value}
    embedded = document.get(first)
    return {**document, first: {**(embedded if isinstance(embedded, Mapping) else {}), second: value}}


def _chunks(values: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(values)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk


def _heard(task: asyncio.Task[bytes | None]) -> None:
    if not task.cancelled():
        task.exception()
