"""Where events are kept: in the catalogue's database, or in a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from annserve.catalog.file_events import FileEventStore
from annserve.cli.catalog_source import CatalogSource
from annserve.cli.options import settings
from annserve.domain.catalog import CatalogStore
from annserve.domain.errors import InputError
from annserve.domain.events import EventStore, EventType
from annserve.settings import Settings

EventsOption = Annotated[
    Path | None,
    typer.Option(
        "--events", metavar="FILE", help="Where events are kept when there is no MongoDB. [env: ANNSERVE_EVENTS]"
    ),
]


def event_store_of(settings: Settings, source: CatalogSource | None, catalog: CatalogStore | None) -> EventStore:
    """Return the store of events, to be closed before ``catalog``, which is opened from ``source``."""
    if source is not None and source.is_mongodb:
        from annserve.catalog.mongo_store import MongoCatalog

        assert isinstance(catalog, MongoCatalog)  # noqa: S101  (the source opened it)
        return catalog.event_store()
    return FileEventStore(settings.events)


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
    catalog = source.open() if in_mongodb and source is not None else None
    store = event_store_of(settings(), source, catalog) if in_mongodb else FileEventStore(path)
    try:
        yield store
    finally:
        await store.close()
        if catalog is not None:
            await catalog.close()


def event_words_of(settings: Settings) -> Mapping[EventType, str]:
    """Return what events are called in histories."""
    pairs = (pair.split("=") for pair in settings.event_words.split(",") if pair)
    return {EventType(type_): word for type_, word in pairs}
