"""Where a command finds events: in the catalogue's MongoDB, or in a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from annserve.cli.catalog_source import CatalogSource
from annserve.cli.options import settings
from annserve.domain.errors import InputError
from annserve.domain.events import EventStore

EventsOption = Annotated[
    Path | None,
    typer.Option(
        "--events", metavar="FILE", help="Where events are kept when there is no MongoDB. [env: ANNSERVE_EVENTS]"
    ),
]


@asynccontextmanager
async def opened_events(source: CatalogSource | None, file: Path | None) -> AsyncIterator[EventStore]:
    """Give the event store: ``file`` where it is named, else that of a catalogue in MongoDB, else the settings' file.

    Raises:
        InputError: there is no such file.
    """
    if file is None and source is not None and source.is_mongodb:
        from annserve.catalog.mongo_store import MongoCatalog

        catalog = source.open()
        assert isinstance(catalog, MongoCatalog)  # noqa: S101 - `is_mongodb` says so.
        try:
            yield catalog.event_store()
        finally:
            await catalog.close()
        return
    from annserve.catalog.file_events import FileEventStore

    path = file or settings().events
    if not path.exists():
        raise InputError(f"{path}: no events there; name their file with --events, or their MongoDB with --catalog")
    store = FileEventStore(path)
    try:
        yield store
    finally:
        await store.close()
