"""A keeper in a process of its own, over a MongoDB catalogue: ``keep_catalogue.py URI DATABASE ITEM_COUNT SOCKET``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from catalog_twin import Rows

from annserve.catalog.config import CatalogConfig
from annserve.catalog.mongo_store import MongoCatalog
from annserve.keeper.hub import KeeperHub

FIELDS = {"price": "number", "colour": "string"}


def config_of(database: str) -> CatalogConfig:
    # A busy machine may take longer than look-ups have by default, and no test here is about that.
    where = {"database": database, "operation_timeout_ms": 5_000}
    return CatalogConfig.model_validate({"fields": FIELDS, "mongodb": where})


async def keep(uri: str, database: str, item_count: int, path: Path) -> None:
    rows = Rows.numbered(item_count)
    hub = KeeperHub(MongoCatalog(uri, config_of(database)), lambda _: rows)
    await hub.start(path)
    # Whoever started it holds the other end, and is gone when it is closed.
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(keep(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
