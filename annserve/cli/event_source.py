"""Where events are kept: in the catalogue's database, or in a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from annserve.catalog.file_erasures import FileErasureStore
from annserve.catalog.file_events import FileEventStore
from annserve.cli.catalog_source import CatalogSource, catalog_source
from annserve.cli.options import settings
from annserve.domain.catalog import CatalogStore
from annserve.domain.erasure import ErasedUsers, ErasureStore
from annserve.domain.errors import InputError
from annserve.domain.events import EventStore, EventType
from annserve.settings import Settings

EventsOption = Annotated[
    Path | None,
    typer.Option(
        "--events", metavar="FILE", help="Where events are kept when there is no MongoDB. [env: ANNSERVE_EVENTS]"
    ),
]

T = TypeVar("T")


def event_store_of(known: Settings, source: CatalogSource | None, catalog: CatalogStore | None) -> EventStore:
    """Return the store of events, to be closed before ``catalog``, which is opened from ``source``."""
    if source is not None and source.is_mongodb:
        from annserve.catalog.mongo_store import MongoCatalog

        assert isinstance(catalog, MongoCatalog)  # noqa: S101  (the source opened it)
        return catalog.event_store()
    return FileEventStore(known.events)


def erasure_store_of(known: Settings, source: CatalogSource | None, catalog: CatalogStore | None) -> ErasureStore:
    """Return the store of erasures, beside that of events; see `event_store_of`."""
    if source is not None and source.is_mongodb:
        from annserve.catalog.mongo_store import MongoCatalog

        assert isinstance(catalog, MongoCatalog)  # noqa: S101  (the source opened it)
        return catalog.erasure_store()
    return FileErasureStore(known.erased_users)


def event_words_of(known: Settings) -> Mapping[EventType, str]:
    """Return what events are called in histories."""
    pairs = (pair.split("=") for pair in known.event_words.split(",") if pair)
    return {EventType(type_): word for type_, word in pairs}


@asynccontextmanager
async def opened_events(source: CatalogSource | None, file: Path | None) -> AsyncIterator[EventStore]:
    """Give the store of events that there are: ``file`` where it is named, else that of ``source`` or the settings.

    Raises:
        InputError: there is no such file.
    """
    in_mongodb = file is None and source is not None and source.is_mongodb
    path = file or settings().events
    if not in_mongodb and not path.exists():
        raise InputError(f"{path}: no events there; name their file with --events, or their MongoDB with --catalog")
    async with _opened(source if in_mongodb else None) as catalog:
        store = event_store_of(settings(), source, catalog) if in_mongodb else FileEventStore(path)
        try:
            yield store
        finally:
            await store.close()


def use_events(task: Callable[[EventStore], Awaitable[T]], known: Settings, source: CatalogSource | None) -> T:
    """Open the store of events, return what ``task`` does with it, and close it."""

    async def run() -> T:
        async with _opened(source) as catalog:
            store = event_store_of(known, source, catalog)
            try:
                return await task(store)
            finally:
                await store.close()

    return asyncio.run(run())


def known_erased() -> ErasedUsers:
    """Return the users who were erased, as the settings say where to look.

    Raises:
        CatalogUnavailableError: that cannot be read, and nobody may be trained on who is among them.
    """

    async def read() -> ErasedUsers:
        source, erased = catalog_source(None, None), ErasedUsers()
        async with _opened(source) as catalog:
            erased.add(await erasure_store_of(settings(), source, catalog).since(0))
        return erased

    return asyncio.run(read())


@asynccontextmanager
async def _opened(source: CatalogSource | None) -> AsyncIterator[CatalogStore | None]:
    """Give the catalogue where it is in MongoDB: what is in files needs none."""
    catalog = source.open() if source is not None and source.is_mongodb else None
    try:
        yield catalog
    finally:
        if catalog is not None:
            await catalog.close()
