"""Users' histories in MongoDB: a document a user with a list of entries, or a document an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.datetime_ms import DatetimeMS
from pymongo import DESCENDING, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.read_concern import ReadConcern

from annserve.catalog.config import HistoriesConfig
from annserve.catalog.mongo_connection import Json, Lane, MongoConnection
from annserve.catalog.mongo_ids import id_of, stored_id
from annserve.domain.catalog import HistoryEntry, StoredEntry
from annserve.domain.deadline import Deadline
from annserve.domain.errors import InvalidArgumentError

_EVENT = "viewed"
"""What was done where an entry does not say."""
_DOCUMENTS_AT_ONCE = 100
_ENTRIES_AT_ONCE = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MongoHistories:
    """What the two layouts share; entries that are not as configured are passed over."""

    def __init__(self, connection: MongoConnection, config: HistoriesConfig) -> None:
        self._connection = connection
        self._config = config
        self._collection: AsyncCollection[Json] = connection.database[config.collection]

    async def read(self, user_id: str, newest: int, deadline: Deadline) -> Sequence[HistoryEntry]:
        """Return a user's newest entries, oldest first."""
        user = self._user(user_id)
        newest = min(newest, self._config.entries_max)
        if user is None or newest < 1:
            return []
        stored = await self._connection.ask(lambda ms: self._stored(user, newest, ms), deadline)
        self._connection.counters.documents += len(stored)
        return sorted(self._entries(stored), key=lambda entry: entry.time_ms)

    async def add(self, user_id: str, entries: Sequence[HistoryEntry], deadline: Deadline) -> None:
        """Add to a user's history."""
        user = self._user(user_id)
        if user is None:
            raise InvalidArgumentError.of("user_id", f"must be an id of type {self._config.user_id_type}")
        written = [self._written(entry) for entry in entries]
        if written:
            await self._connection.ask(lambda _: self._add(user, written), deadline, primary=True)

    async def erase(self, user_id: str, deadline: Deadline) -> int:
        """Forget a user, and return how many entries that were."""
        user = self._user(user_id)
        if user is None:
            return 0
        return await self._connection.ask(lambda _: self._erase(user), deadline, primary=True)

    async def all(self) -> AsyncIterator[Sequence[StoredEntry]]:
        """Yield the entries of all users, as a majority has them, in no order; those of no use too."""
        settled = self._collection.with_options(
            read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        cursor = settled.find({}, self._projection(), batch_size=self._at_once)
        try:
            while documents := await self._connection.ask(
                lambda _: cursor.to_list(self._at_once), lane=Lane.BULK, primary=True
            ):
                self._connection.counters.documents += len(documents)
                yield [entry for document in documents for entry in self._all_of(document)]
        finally:
            if cursor.alive:
                self._connection.abandon(cursor)

    _at_once = _DOCUMENTS_AT_ONCE

    def _projection(self) -> dict[str, int]:
        return {self._config.user_path: 1, self._config.entries_field: 1}

    def _all_of(self, document: Json) -> Iterable[StoredEntry]:
        entries = document.get(self._config.entries_field)
        user_id = id_of(document.get(self._config.user_path), self._config.user_id_type)
        return (self._entry(user_id, entry) for entry in (entries if isinstance(entries, list) else ()))

    def _entry(self, user_id: str | None, entry: object) -> StoredEntry:
        config = self._config
        values = entry if isinstance(entry, dict) else {}
        event, time = values.get(config.event_field, _EVENT), values.get(config.time_field)
        return StoredEntry(
            user_id=user_id,
            item_id=id_of(values.get(config.item_field), config.item_id_type),
            event=event if isinstance(event, str) else None,
            time_ms=int(time) if isinstance(time, DatetimeMS) else None,
        )

    async def _stored(self, user: object, newest: int, max_time_ms: int) -> list[Json]:
        config = self._config
        found = await self._collection.find_one(
            {config.user_path: user},
            # The user's id keeps other fields out: a slice alone would bring the whole document.
            {config.user_path: 1, config.entries_field: {"$slice": -newest}},
            max_time_ms=max_time_ms,
        )
        entries = (found or {}).get(config.entries_field)
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []

    async def _add(self, user: object, written: list[Json]) -> None:
        config = self._config
        # Kept in the order of time, so that the last of the list are the newest whoever was late.
        pushed = {"$each": written, "$sort": {config.time_field: 1}, "$slice": -config.entries_max}
        await self._collection.update_one(
            {config.user_path: user}, {"$push": {config.entries_field: pushed}}, upsert=True
        )

    async def _erase(self, user: object) -> int:
        config, count = self._config, 0
        while erased := await self._collection.find_one_and_delete({config.user_path: user}, {config.entries_field: 1}):
            entries = erased.get(config.entries_field)
            count += len(entries) if isinstance(entries, list) else 0
        return count

    def _user(self, user_id: str) -> object | None:
        return stored_id(user_id, self._config.user_id_type)

    def _written(self, entry: HistoryEntry) -> Json:
        config = self._config
        item = stored_id(entry.item_id, config.item_id_type)
        if item is None:
            raise InvalidArgumentError.of("entries.item_id", f"must be an id of type {config.item_id_type}")
        return {
            config.item_field: item,
            config.event_field: entry.event,
            config.time_field: _EPOCH + timedelta(milliseconds=entry.time_ms),
        }

    def _entries(self, stored: Iterable[Mapping[str, Any]]) -> Iterable[HistoryEntry]:
        for entry in (self._entry(None, values) for values in stored):
            if entry.item_id is not None and entry.event is not None and entry.time_ms is not None:
                yield HistoryEntry(item_id=entry.item_id, event=entry.event, time_ms=entry.time_ms)


class MongoEvents(MongoHistories):
    """A document an event. Such a collection is often a log of the team's own: only `erase` takes anything out."""

    _at_once = _ENTRIES_AT_ONCE

    def _projection(self) -> dict[str, int]:
        config = self._config
        names = (config.user_path, config.item_field, config.event_field, config.time_field)
        return {"_id": 0, **dict.fromkeys(names, 1)}

    def _all_of(self, document: Json) -> Iterable[StoredEntry]:
        user_id = id_of(document.get(self._config.user_path), self._config.user_id_type)
        return (self._entry(user_id, document),)

    async def _stored(self, user: object, newest: int, max_time_ms: int) -> list[Json]:
        config = self._config
        cursor = self._collection.find(
            {config.user_path: user},
            {"_id": 0, config.item_field: 1, config.event_field: 1, config.time_field: 1},
            max_time_ms=max_time_ms,
            batch_size=newest + 1,
            limit=newest,
        ).sort(config.time_field, DESCENDING)
        return await cursor.to_list()

    async def _add(self, user: object, written: list[Json]) -> None:
        await self._collection.insert_many([{self._config.user_path: user, **entry} for entry in written])

    async def _erase(self, user: object) -> int:
        result = await self._collection.delete_many({self._config.user_path: user})
        return result.deleted_count


def histories_of(connection: MongoConnection, config: HistoriesConfig) -> MongoHistories:
    """Return the histories in the layout that ``config`` names."""
    return (MongoEvents if config.layout == "events" else MongoHistories)(connection, config)
