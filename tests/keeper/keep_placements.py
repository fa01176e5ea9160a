"""A keeper in a process of its own that follows a folder of placements: ``keep_placements.py FOLDER SOCKET KEPT``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from catalog_twin import Rows

from annserve.domain.catalog import Schema
from annserve.domain.filter import Field, FieldType
from annserve.keeper.hub import KeeperHub
from annserve.keeper.placement_follower import PlacementFollower
from annserve.placements.folder import PlacementFolder

SCHEMA = Schema([Field(name="price", type=FieldType.NUMBER, path="price")])


async def keep(folder: Path, socket: Path, kept: Path) -> None:
    rows = Rows.numbered(1)
    hub = KeeperHub(None, lambda _: rows)
    PlacementFollower(PlacementFolder(folder), SCHEMA, hub, kept).start()
    await hub.start(socket)
    # Whoever started it holds the other end, and is gone when it is closed.
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(keep(*map(Path, sys.argv[1:4])))
