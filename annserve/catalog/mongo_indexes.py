"""Which indexes the catalogue needs, which are there, and whether a filter has one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cachetools import TTLCache
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError, OperationFailure

from annserve.catalog.config import MongoConfig
from annserve.catalog.mongo_connection import Json, Lane, MongoConnection
from annserve.domain.deadline import Deadline
from annserve.domain.errors import FieldNotIndexedError, InputError
from annserve.domain.filter import Field, Filter, leaves_of

_log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 60.0
"""How long the index of ids is believed to be there."""
REFUSED_SECONDS = 10.0
"""How long it is believed that a field has no index."""
BUILD_SECONDS = 3_600.0


class MongoIndexes:
    """The indexes of items and histories, and the guard against reading whole collections."""

    def __init__(self, connection: MongoConnection, config: MongoConfig) -> None:
        self._connection = connection
        self._config = config
        self._items: AsyncCollection[Json] = connection.database[config.items.collection]
        self._warned: set[str] = set()
        self._id_hints: TTLCache[str, str] = TTLCache(1, REMEMBERED_SECONDS)
        self._refused: TTLCache[str, bool] = TTLCache(1_000, REFUSED_SECONDS)

    async def check(self, name: str, filter_: Mapping[str, Any], deadline: Deadline) -> None:
        """Have MongoDB explain how it would find ``filter_``, a test of the field called ``name``.

        Raises:
            FieldNotIndexedError: by reading every document, and the settings refuse that.
        """
        command = {"explain": {"find": self._items.name, "filter": filter_}, "verbosity": "queryPlanner"}
        plan = await self._connection.ask(
            lambda ms: self._connection.database.command(command, maxTimeMS=ms), deadline, Lane.BULK
        )
        if "COLLSCAN" in _stages(plan["queryPlanner"]["winningPlan"]) and await self._has_documents(deadline):
            self._tell_unindexed(name)

    def _tell_unindexed(self, name: str) -> None:
        """Raise `FieldNotIndexedError`, or warn once a field, as the settings say."""
        if self._config.unindexed_fields == "refuse":
            self._refused[name] = True
            raise FieldNotIndexedError(name)
        if name not in self._warned:
            self._warned.add(name)
            _log.warning("no index serves a filter on %r: every document is read for it", name)

    def refuse_again(self, filter_: Filter) -> None:
        """Raise FieldNotIndexedError for a field that was refused a moment ago.

        A look-up by id needs no index of the field; whether a filter is refused must not depend on how it is applied.
        """
        if self._refused:
            for leaf in leaves_of(filter_):
                if leaf.field.name in self._refused:
                    raise FieldNotIndexedError(leaf.field.name)

    async def id_hint(self, deadline: Deadline) -> str | None:
        """Return the name of the index that finds items by id, None where reading without one is put up with.

        Raises:
            FieldNotIndexedError: there is none, and the settings refuse to go on.
        """
        id_field = self._config.items.id_field
        if id_field == "_id":
            return "_id_"
        if id_field not in self._id_hints:
            indexes = await self._connection.ask(lambda _: _listed(self._items), deadline)
            usable = [name for name, index in indexes.items() if _leads_to(index, id_field)]
            if not usable:
                if await self._has_documents(deadline):
                    self._tell_unindexed(id_field)
                return None
            # The narrowest first: an index of the id alone is the smallest.
            usable.sort(key=lambda name: len(indexes[name]["key"]))
            self._id_hints[id_field] = usable[0]
        return self._id_hints[id_field]

    async def ensure(self, fields: Iterable[Field]) -> list[str]:
        """Create what is not there, and return its names.

        Raises:
            InputError: two documents have one id.
        """
        id_field, histories = self._config.items.id_field, self._config.histories
        created: list[str] = []
        if id_field != "_id":
            created += await self._created(self._items, [(id_field, 1)], unique=True)
            created += await self._with_pre_images()
        for path in dict.fromkeys(field.path for field in fields):
            if path not in ("_id", id_field):
                # The id beside the value: a filter is answered from the index alone.
                created += await self._created(self._items, [(path, 1), (id_field, 1)])
        collection = self._connection.database[histories.collection]
        if histories.layout == "events":
            created += await self._created(collection, [(histories.user_path, 1), (histories.time_field, -1)])
        elif histories.user_path != "_id":
            created += await self._created(collection, [(histories.user_path, 1)], unique=True)
        self._id_hints.clear()
        self._refused.clear()
        return created

    async def _created(
        self, collection: AsyncCollection[Json], keys: list[tuple[str, int]], unique: bool = False
    ) -> list[str]:
        there = await self._connection.ask(lambda _: _listed(collection), lane=Lane.BULK)
        if any(_is_whole(index) and list(index["key"].items()) == keys for index in there.values()):
            return []
        try:
            name = await self._connection.ask(
                lambda _: _new_index(collection, keys, unique), lane=Lane.BULK, primary=True, seconds=BUILD_SECONDS
            )
        except _SharedKeyError as error:
            raise InputError(
                f"documents of {collection.name!r} share a value of {keys[0][0]!r}, which has to be unique",
                collection=collection.name,
                field=keys[0][0],
            ) from error
        return [f"{collection.name}: {name}"]

    async def _with_pre_images(self) -> list[str]:
        """Have change streams tell which item a deleted document was: of its own they know but ``_id``."""
        return await self._connection.ask(lambda _: _switch_on_pre_images(self._items), lane=Lane.BULK, primary=True)

    async def _has_documents(self, deadline: Deadline) -> bool:
        """Return whether there is anything to read at all: an empty collection needs no index."""
        found = await self._connection.ask(
            lambda ms: self._items.find_one({}, {"_id": 1}, max_time_ms=ms), deadline, Lane.BULK
        )
        return found is not None


class _SharedKeyError(Exception):
    """A unique index cannot be made."""


async def _new_index(collection: AsyncCollection[Json], keys: list[tuple[str, int]], unique: bool) -> str:
    try:
        return await collection.create_index(keys, unique=unique) if unique else await collection.create_index(keys)
    except DuplicateKeyError:
        raise _SharedKeyError from None


async def _listed(collection: AsyncCollection[Json]) -> Mapping[str, Mapping[str, Any]]:
    cursor = await collection.list_indexes()
    return {index["name"]: index async for index in cursor}


async def _switch_on_pre_images(collection: AsyncCollection[Json]) -> list[str]:
    database = collection.database
    try:
        async for there in await database.list_collections(filter={"name": collection.name}):
            if there.get("options", {}).get("changeStreamPreAndPostImages", {}).get("enabled"):
                return []
        await database.command({"collMod": collection.name, "changeStreamPreAndPostImages": {"enabled": True}})
    except OperationFailure as error:
        _log.warning("deletes of %r will be followed slowly: no pre-images (code %s)", collection.name, error.code)
        return []
    return [f"{collection.name}: pre-images"]


def _is_whole(index: Mapping[str, Any]) -> bool:
    """Return whether every document is in ``index``, in the order of code points."""
    return not {"partialFilterExpression", "sparse", "collation"} & {name for name, value in index.items() if value}


def _leads_to(index: Mapping[str, Any], field: str) -> bool:
    # A sparse index holds every document that has an id, and no other is an item.
    first, direction = next(iter(index["key"].items()))
    return first == field and direction in (1, -1) and not {"partialFilterExpression", "collation"} & set(index)


def _stages(plan: object) -> Iterator[str]:
    """Yield the names of the stages anywhere in a plan, whose shape differs from server to server."""
    if isinstance(plan, Mapping):
        if isinstance(stage := plan.get("stage"), str):
            yield stage
        for part in plan.values():
            yield from _stages(part)
    elif isinstance(plan, list):
        for part in plan:
            yield from _stages(part)
