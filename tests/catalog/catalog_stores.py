"""Every kind of catalogue store, empty, with the same declared fields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mongo_catalogs import config_of

from annserve.catalog.file_store import FileCatalog
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import CatalogStore
from annserve.domain.filter import Leaf

STORES = ("file", "mongodb")


@asynccontextmanager
async def empty_store(kind: str, folder: Path, uri: str, database_name: str) -> AsyncIterator[CatalogStore]:
    """Open a store of ``kind`` that holds nothing yet, and has its indexes."""
    config = config_of(database_name)
    store: CatalogStore = (
        MongoCatalog(uri, config)
        if kind == "mongodb"
        else FileCatalog(folder / "items.jsonl", config.declared(), folder / "histories.jsonl", create=True)
    )
    try:
        await store.ensure_indexes()
        yield store
    finally:
        await store.close()


async def ids_passing(store: CatalogStore, leaf: Leaf | None) -> set[str]:
    return {item_id async for chunk in store.matching(leaf) for item_id in chunk}
