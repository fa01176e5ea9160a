"""The changes of items as MongoDB's change stream tells them, across lost connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure, PyMongoError

from annserve.catalog.config import ItemsConfig
from annserve.catalog.evaluate import found_at
from annserve.catalog.mongo_connection import Json, MongoConnection, last_resort
from annserve.catalog.mongo_errors import UNAUTHORIZED, problem_of
from annserve.catalog.mongo_ids import id_of
from annserve.domain.catalog import Change, ChangesLostError, ChangesUnsupportedError
from annserve.domain.errors import CatalogUnavailableError

WAIT_MS = 100
"""How long the server waits for a change before it says that there is none."""
CHANGES_MAX = 1_000
"""How many changes come at once."""

_LOST = {
    136,  # CappedPositionLost
    222,  # CloseChangeStream
    260,  # InvalidResumeToken
    280,  # ChangeStreamFatalError
    286,  # ChangeStreamHistoryLost
}
_UNSUPPORTED = {
    UNAUTHORIZED,
    9,  # FailedToParse: no pre-images before MongoDB 6.0
    59,  # CommandNotFound
    115,  # CommandNotSupported
    238,  # NotImplemented
    303,  # FeatureNotSupported
    40_324,  # the server does not know the stage
    40_415,  # the server does not know an option
    40_573,  # only replica sets have it
}
_ENDING = {"invalidate", "drop", "dropDatabase", "rename"}


class MongoChanges(AsyncIterator[Sequence[Change]]):
    """What happens to items from the first sequence on: what was read of the catalogue before that, it may not cover.

    Where the id is not ``_id``, a deletion says which item it was only by a pre-image (MongoDB 6.0; switched on by
    `ensure_indexes`). Without one the changes count as lost: to keep the id of every document in memory would cost
    more than to read the catalogue anew now and then. That a document got another id is not noticed without one.
    """

    def __init__(
        self, connection: MongoConnection, collection: AsyncCollection[Json], config: ItemsConfig, paths: Sequence[str]
    ) -> None:
        self._connection = connection
        self._collection = collection
        self._config = config
        self._stream: AsyncChangeStream[Json] | None = None
        # The driver is asked in tasks of our own only: under Python 3.11 its `asyncio.wait_for` swallows a cancellation
        # that comes as the answer does, and a follower who was told to end would go on.
        self._opening: asyncio.Task[AsyncChangeStream[Json]] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._token: Mapping[str, Any] | None = None
        self._pending: asyncio.Task[Json | None] | None = None
        # Kept here, so that a caller who is cancelled loses nothing.
        self._gathered: list[Change] = []
        self._drained = False
        self._unopened = False
        kept = {f"fullDocument.{path}": 1 for path in paths}
        self._pipeline = [
            {
                "$project": {
                    "operationType": 1,
                    "documentKey": 1,
                    f"fullDocumentBeforeChange.{config.id_field}": 1,
                    **kept,
                }
            }
        ]

    def __aiter__(self) -> MongoChanges:
        return self

    async def __anext__(self) -> Sequence[Change]:
        """Return the next changes, none when everything up to now has been told.

        Raises:
            CatalogUnavailableError: not now; ask again.
            ChangesLostError: this stream is over.
            ChangesUnsupportedError: the server has no change streams, or none for this user.
        """
        if self._drained:
            self._drained = False
            assert self._pending is not None  # noqa: S101  (it is what had nothing yet)
            if not self._pending.done():
                return ()
            # It was answered while the caller was busy with the last changes, and "none" may be long ago.
            if self._pending.exception() is None and self._pending.result() is None:
                self._pending = None
        try:
            await self._open()
            return await self._read()
        except TimeoutError:
            # What is under way stays: it ends when the server goes on, or when the monitor finds it gone.
            raise CatalogUnavailableError("the change stream is silent") from None
        except ChangesLostError:
            await self._leave()
            raise
        except OperationFailure as error:
            await self._leave()
            if error.code in _LOST:
                raise ChangesLostError from error
            # What once was told of changes will be again, also where rights are withdrawn for a while.
            if error.code in _UNSUPPORTED and self._token is None:
                raise ChangesUnsupportedError from error
            raise CatalogUnavailableError(problem_of(error)) from error
        except (PyMongoError, OSError) as error:
            await self._leave()
            raise CatalogUnavailableError(problem_of(error)) from error

    async def aclose(self) -> None:
        """Let go of the stream."""
        await self._leave()

    async def _open(self) -> None:
        if self._stream is not None:
            return
        try:
            if self._opening is None:
                await self._connection.wait_for_server(WAIT_MS / 1_000)
                self._opening = asyncio.create_task(self._opened())
            self._stream = await asyncio.shield(self._opening)
        except (PyMongoError, OSError, CatalogUnavailableError):
            self._opening = None
            self._unopened = self._token is None
            raise
        self._opening = None
        self._token = self._stream.resume_token
        if self._unopened:
            # Nobody knows what happened while there was nothing to go on from.
            self._unopened = False
            raise ChangesLostError

    async def _opened(self) -> AsyncChangeStream[Json]:
        async with asyncio.timeout(last_resort(self._connection.timeout_seconds)):
            return await self._collection.watch(
                self._pipeline,
                full_document="updateLookup",
                full_document_before_change=None if self._config.id_field == "_id" else "whenAvailable",
                resume_after=self._token,
                max_await_time_ms=WAIT_MS,
                batch_size=CHANGES_MAX,
            )

    async def _read(self) -> Sequence[Change]:
        """Return what the server has already sent, waiting for it only when that is nothing."""
        while len(self._gathered) < CHANGES_MAX:
            event = await self._next(wait=not self._gathered)
            if event is None:
                break
            self._gathered += self._changes_of(event)
        changes, self._gathered = self._gathered, []
        # A full batch may have left others behind; less than that, and nothing since, was all there was.
        self._drained = 0 < len(changes) < CHANGES_MAX and self._pending is not None and not self._pending.done()
        return changes

    async def _next(self, wait: bool) -> Json | None:
        """Return the next event, None when there is none within the server's wait or, unless ``wait``, here already."""
        if self._stream is None:
            raise ChangesLostError
        if self._pending is None:
            self._pending = asyncio.create_task(self._stream.try_next())
            # What the driver has at hand it returns in the task's first step; else the task is off to the server.
            await asyncio.sleep(0)
        # An error waits until what was gathered is told.
        if not wait and (not self._pending.done() or self._pending.exception()):
            return None
        async with asyncio.timeout(WAIT_MS / 1_000 + self._connection.timeout_seconds):
            event = await asyncio.shield(self._pending)
        self._pending = None
        self._token = self._stream.resume_token
        return event

    def _changes_of(self, event: Json) -> list[Change]:
        kind = event["operationType"]
        if kind in _ENDING:
            raise ChangesLostError
        key = event.get("documentKey", {})
        document = event.get("fullDocument")
        before = self._id_in(event.get("fullDocumentBeforeChange") or {})
        after = self._id_in(key if self._config.id_field == "_id" else document or {})
        if document is None:
            # Deleted, or changed and then deleted.
            deleted = after or before
            if deleted is None and self._config.id_field != "_id":
                raise ChangesLostError
            return [] if deleted is None else [Change(item_id=deleted, document=None)]
        renamed = [Change(item_id=before, document=None)] if before is not None and before != after else []
        return renamed if after is None else [*renamed, Change(item_id=after, document=document)]

    def _id_in(self, document: Mapping[str, Any]) -> str | None:
        found = found_at(self._config.id_field, document)
        return id_of(found[0], self._config.id_type) if found else None

    async def _leave(self) -> None:
        tasks = [task for task in (self._pending, self._opening) if task is not None]
        stream, self._stream, self._pending, self._opening = self._stream, None, None, None
        leaving = asyncio.create_task(self._let_go(tasks, stream))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        await asyncio.shield(leaving)

    async def _let_go(self, tasks: Sequence[asyncio.Task[Any]], stream: AsyncChangeStream[Json] | None) -> None:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for opened in (stream, *outcomes):
            if isinstance(opened, AsyncChangeStream):
                with contextlib.suppress(PyMongoError, OSError, TimeoutError):
                    async with asyncio.timeout(self._connection.timeout_seconds):
                        await opened.close()
