"""Events in MongoDB, a document each: its `_id` is the event's, so that the database itself knows duplicates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final

from bson.datetime_ms import DatetimeMS
from pymongo import ASCENDING, DESCENDING, IndexModel, ReadPreference
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError, OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from annserve.catalog.config import EventsConfig
from annserve.catalog.event_values import event_of, values_of
from annserve.catalog.mongo_connection import Json, Lane, MongoConnection
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.events import Event, EventType, ShownItem, Written, shown_items

IMPRESSIONS_READ: Final = 200
"""Of how many of a user's newest impressions `shown` looks at the items, at most."""

_CHUNK = 1_000
_INDEX_SECONDS = 60.0
_DAY_SECONDS = 86_400
_DUPLICATE_KEY = 11_000
_OTHER_OPTIONS = 85
"""There is such an index, with another time after which documents expire."""


class MongoEventStore:
    """The collection of ``config`` in the catalogue's database; implements `domain.events.EventStore`.

    One event loop uses it, that of ``connection``. What is older than it is to be kept the database drops by itself.
    """

    def __init__(self, connection: MongoConnection, config: EventsConfig) -> None:
        self._connection = connection
        self._name = config.collection
        collection: AsyncCollection[Json] = connection.database[config.collection]
        # What is acknowledged must outlive the loss of a member, and of its power.
        self._written = collection.with_options(
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
        )
        self._events = collection

    async def write(self, events: Sequence[Event], deadline: Deadline = NO_DEADLINE) -> Written:
        """Keep ``events``; when this returns a majority has them in its journal."""
        new: dict[str, int] = {}
        for place, event in enumerate(events):
            new.setdefault(event.event_id, place)
        places = list(new.values())
        documents = [_document(events[place]) for place in places]
        known: set[int] = set()
        if documents:
            known = await self._connection.ask(lambda _: self._insert(documents), deadline, Lane.WRITE, primary=True)
        accepted = {place for number, place in enumerate(places) if number not in known}
        duplicates = tuple(place for place in range(len(events)) if place not in accepted)
        return Written(accepted_count=len(accepted), duplicate_count=len(duplicates), duplicate_places=duplicates)

    async def of_user(
        self,
        user_id: str,
        newest: int,
        types: Collection[EventType] = tuple(EventType),
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[Event]:
        """Return a user's newest events of ``types``, latest first."""
        if newest < 1:
            return []

        async def found(max_time_ms: int) -> list[Json]:
            cursor = self._events.find(
                {"user_id": user_id, "type": {"$in": [type_.value for type_ in types]}},
                max_time_ms=max_time_ms,
                batch_size=newest + 1,
                limit=newest,
            )
            return await cursor.sort("time", DESCENDING).to_list()

        return _events(await self._connection.ask(found, deadline))

    async def shown(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[ShownItem]:
        """Return the items of a user's newest `IMPRESSIONS_READ` impressions, each once, latest first."""
        impressions = await self.of_user(user_id, min(newest, IMPRESSIONS_READ), (EventType.IMPRESSION,), deadline)
        return shown_items(impressions, newest)

    async def read(
        self, since_ms: int, until_ms: int, types: Collection[EventType] = tuple(EventType)
    ) -> AsyncIterator[Sequence[Event]]:
        """Yield the events of ``types`` of ``[since_ms, until_ms)``, ordered by time."""
        wanted: Json = {"time": {"$gte": DatetimeMS(since_ms), "$lt": DatetimeMS(until_ms)}}
        if len(types) < len(EventType):
            wanted["type"] = {"$in": [type_.value for type_ in types]}
        cursor = self._written.find(wanted, batch_size=_CHUNK).sort("time", ASCENDING)
        try:
            while documents := await self._connection.ask(
                lambda _: cursor.to_list(_CHUNK), lane=Lane.BULK, primary=True
            ):
                yield _events(documents)
        finally:
            if cursor.alive:
                self._connection.abandon(cursor)

    async def erase_user(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        """Forget all events of a user, and return how many those were."""

        async def deleted(_: int) -> int:
            return (await self._written.delete_many({"user_id": user_id})).deleted_count

        return await self._connection.ask(deleted, deadline, Lane.BULK, primary=True)

    async def maintain(self, keep_days: int) -> None:
        """Make the indexes that are missing; by one of them the database drops what is older than ``keep_days``."""
        await self._connection.ask(
            lambda _: self._index(keep_days * _DAY_SECONDS), lane=Lane.BULK, primary=True, seconds=_INDEX_SECONDS
        )

    async def close(self) -> None:
        """Nothing is held: the connection is somebody else's."""

    async def _insert(self, documents: Sequence[Json]) -> set[int]:
        """Insert ``documents`` and return which of them were there."""
        try:
            # Unordered: one that is there must not keep those behind it out.
            await self._written.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            problems = error.details["writeErrors"]
            if error.details["writeConcernErrors"] or any(one["code"] != _DUPLICATE_KEY for one in problems):
                raise
            return {one["index"] for one in problems}
        return set()

    async def _index(self, keep_seconds: int) -> None:
        await self._written.create_indexes(
            [
                IndexModel([("user_id", ASCENDING), ("type", ASCENDING), ("time", DESCENDING)]),
                IndexModel(
                    [("impression_id", ASCENDING)], partialFilterExpression={"impression_id": {"$exists": True}}
                ),
            ]
        )
        try:
            await self._written.create_index([("time", ASCENDING)], expireAfterSeconds=keep_seconds)
        except OperationFailure as error:
            if error.code != _OTHER_OPTIONS:
                raise
            index = {"keyPattern": {"time": ASCENDING}, "expireAfterSeconds": keep_seconds}
            await self._connection.database.command("collMod", self._name, index=index)


def _document(event: Event) -> Json:
    return {"_id": event.event_id, "time": DatetimeMS(event.time_ms), **values_of(event)}


def _events(documents: Sequence[Mapping[str, Any]]) -> list[Event]:
    return [event for document in documents if (event := _event(document)) is not None]


def _event(document: Mapping[str, Any]) -> Event | None:
    """Return the event of ``document``; None for one that somebody else put there."""
    try:
        return event_of(document["_id"], int(document["time"]), document)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
