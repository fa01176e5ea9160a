"""Where events are kept: in the catalogue's database, or in a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from annserve.catalog.file_erasures import FileErasureStore
from annserve.catalog.file_events import FileEventStore
from annserve.cli.catalog_source import CatalogSource, catalog_source
from annserve.cli.options import settings
from annserve.domain.catalog import CatalogStore
from annserve.domain.erasure import ErasedUsers, ErasureStore
from annserve.domain.events import EventStore, EventType
from annserve.settings import Settings

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
