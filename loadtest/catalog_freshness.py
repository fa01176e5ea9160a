#!/usr/bin/env python3
"""How long an item that stopped passing a filter is still served: `annserve serve` on a real mongod, over gRPC.

An item of an answer is updated in MongoDB so that it fails the filter; from the moment the update is acknowledged,
calls follow each other until one does not hold the item any more, and for a while after that, should it come back.
Once with change streams (a replica set), and once by age alone (a standalone server, read again every --ttl-ms).

    .venv/bin/python loadtest/catalog_freshness.py [--updates 500] [--snapshots FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own servers; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from catalog_faults import snapshots_in
from mongod import Mongod
from pymongo import AsyncMongoClient
from served_catalog import DATABASE, load_items, served

from annserve.cli.output import print_rows, say
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
from annserve_client import Options, field
from annserve_client.aio import AsyncClient

LATE_SECONDS = 0.1
"""After this, an answer that still holds the item counts as stale."""
WATCHED_SECONDS = 0.15
"""For so long after it has vanished the item is looked for."""
GIVE_UP_SECONDS = 30.0
OPTIONS = Options(filter=field("in_stock") == True)  # noqa: E712 - it builds a filter


@dataclass(frozen=True, slots=True)
class Vanishing:
    """What became of one item, in seconds since the update was acknowledged."""

    seconds: float
    """When the first answer without the item had arrived."""
    calls: int
    stale_calls: int
    """Answers that were begun more than `LATE_SECONDS` after the update and still held it."""


def main() -> None:
    """Measure, print, leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder with a live snapshot; by default the demo's")
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--ttl-ms", type=int, default=2_000, help="where changes are not followed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, snapshots_in(arguments.snapshots, Path(scratch)) as folder:
        rows = [measured(folder, arguments, Path(scratch), streams=streams) for streams in (True, False)]
    print_rows(rows, as_json=arguments.json, title="from an acknowledged update to the first answer without the item")


def measured(folder: Path, arguments: argparse.Namespace, scratch: Path, *, streams: bool) -> dict[str, Any]:
    """Return the row of one way to notice changes."""
    items = load_current(SnapshotStore(folder)).snapshot.items
    item_ids = items.ids(np.arange(len(items)))
    say("with change streams" if streams else "by age")
    with Mongod(replica_set=streams) as mongod:
        load_items(mongod.uri, item_ids)
        with served(folder, mongod.uri, scratch, ANNSERVE_CATALOG_TTL_MS=str(arguments.ttl_ms)) as server:
            # By age each takes seconds: there, many are waited for at once, at a slower pace.
            at_once, pause = (2, 0.001) if streams else (25, 0.02)
            seen = asyncio.run(vanishings(mongod.uri, server.address, item_ids, arguments.updates, at_once, pause))
    milliseconds = np.array([one.seconds for one in seen]) * 1e3
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {
        "freshness": "change streams" if streams else f"TTL of {arguments.ttl_ms:,} ms",
        "updates": len(seen),
        "p50 ms": round(float(p50), 2),
        "p99 ms": round(float(p99), 2),
        "max ms": round(float(milliseconds.max()), 2),
        "calls": sum(one.calls for one in seen),
        f"stale after {LATE_SECONDS * 1e3:.0f} ms": sum(one.stale_calls for one in seen),
    }


async def vanishings(
    uri: str, address: str, item_ids: list[str], updates: int, at_once: int, pause: float
) -> list[Vanishing]:
    """Have ``updates`` items fail the filter, ``at_once`` of them at a time."""
    draw = random.Random(0)  # noqa: S311 - questions, no secret
    changed: set[str] = set()
    seen: list[Vanishing] = []
    async with AsyncMongoClient[dict[str, Any]](uri) as mongo:
        items = mongo[DATABASE]["items"]
        client = AsyncClient(address, timeout_seconds=5.0)

        async def held(seed: str) -> list[str]:
            return [result.item_id for result in (await client.similar([seed], options=OPTIONS)).results]

        async def vanished(seed: str, item_id: str) -> Vanishing:
            await items.update_one({"_id": item_id}, {"$set": {"in_stock": False}})
            done = time.monotonic()
            gone: float | None = None
            calls = stale_calls = 0
            while gone is None or time.monotonic() - done < max(gone, LATE_SECONDS) + WATCHED_SECONDS:
                begun = time.monotonic() - done
                holds = item_id in await held(seed)
                calls += 1
                stale_calls += holds and begun > LATE_SECONDS
                if gone is None and not holds:
                    gone = time.monotonic() - done
                elif gone is None and begun > GIVE_UP_SECONDS:
                    sys.exit(f"{item_id!r} is still served after {GIVE_UP_SECONDS:g} s")
                await asyncio.sleep(pause)
            return Vanishing(gone, calls, stale_calls)

        async def worker() -> None:
            while len(changed) < updates:
                seed = draw.choice(item_ids)
                candidates = [item_id for item_id in await held(seed) if item_id not in changed]
                if candidates and len(changed) < updates:
                    item_id = draw.choice(candidates)
                    changed.add(item_id)
                    # Updates shall fall anywhere between two looks of a server that goes by age.
                    await asyncio.sleep(draw.random() * 100 * pause)
                    seen.append(await vanished(seed, item_id))

        try:
            await asyncio.gather(*(worker() for _ in range(at_once)))
        finally:
            await client.close()
    return seen


if __name__ == "__main__":
    main()
