"""Catalogues in MongoDB for tests, and what to look behind them with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from annserve.catalog.config import CatalogConfig
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import Change, ChangesLostError
from annserve.domain.filter import Leaf

FIELDS = {
    "price": "number",
    "tags": {"type": "string", "many": True},
    "country": {"type": "string", "path": "origin.country"},
    "released": "time",
}


PATIENT_MS = 5_000
"""A look-up's time where a test is not about that: connecting is part of it, and a busy machine may take a second."""


def config_of(database_name: str, operation_timeout_ms: int = PATIENT_MS, **mongodb: Any) -> CatalogConfig:
    where = {"database": database_name, "operation_timeout_ms": operation_timeout_ms, **mongodb}
    return CatalogConfig.model_validate({"fields": FIELDS, "mongodb": where})


@asynccontextmanager
async def catalog_at(uri: str, config: CatalogConfig) -> AsyncIterator[MongoCatalog]:
    catalog = MongoCatalog(uri, config)
    try:
        yield catalog
    finally:
        await catalog.close()


async def passing(catalog: MongoCatalog, leaf: Leaf | None) -> set[str]:
    return {item_id async for chunk in catalog.matching(leaf) for item_id in chunk}


async def told(changes: AsyncIterator[Any], count: int) -> list[Change]:
    """Return the next ``count`` changes."""
    seen: list[Change] = []
    while len(seen) < count:
        seen += await anext(changes)
    return seen


async def lost(changes: AsyncIterator[Any]) -> bool:
    """Return whether the changes end as lost, rather than being drained."""
    try:
        while await anext(changes):
            pass
    except ChangesLostError:
        return True
    return False
