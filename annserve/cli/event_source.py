"""Where events are kept: in the catalogue's database, or in a file."""

from __future__ import annotations

from collections.abc import Mapping

from annserve.catalog.file_events import FileEventStore
from annserve.cli.catalog_source import CatalogSource
from annserve.domain.catalog import CatalogStore
from annserve.domain.events import EventStore, EventType
from annserve.settings import Settings


def event_store_of(settings: Settings, source: CatalogSource | None, catalog: CatalogStore | None) -> EventStore:
    """Return the store of events, to be closed before ``catalog``, which is opened from ``source``."""
    if source is not None and source.is_mongodb:
        from annserve.catalog.mongo_store import MongoCatalog

        assert isinstance(catalog, MongoCatalog)  # noqa: S101  (the source opened it)
        return catalog.event_store()
    return FileEventStore(settings.events)


def event_words_of(settings: Settings) -> Mapping[EventType, str]:
    """Return what events are called in histories."""
    pairs = (pair.split("=") for pair in settings.event_words.split(",") if pair)
    return {EventType(type_): word for type_, word in pairs}
