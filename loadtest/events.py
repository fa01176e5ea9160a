#!/usr/bin/env python3
"""How many events an instance takes a second, and how soon each call is answered: once its events are durable.

    python loadtest/events.py                       # both stores: a file, and MongoDB, which is started for it
    python loadtest/events.py --store file --batch 1
    python loadtest/events.py --kills 20            # a worker is killed every second meanwhile

Afterwards the store is read. Fails when an event that was acknowledged is not there, or is there twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymongo import MongoClient

# What the tests stand their instances up with.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from checked_traffic import item_id, two_snapshots
from event_load import EventLoad
from instances import Instance, instance, until
from mongod import Mongod

from annserve.catalog.file_events import FileEventStore
from annserve.cli.output import print_rows
from annserve_client.admin import AdminClient

ITEMS = 1_000
START_SECONDS = 60.0
KILL_SECONDS = 1.0
_DATABASE = "annserve_events_load"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where events go in a run."""

    options: Sequence[str]
    events: Path
    uri: str | None

    def ids(self) -> list[str]:
        """Return the ids of all that is kept."""
        if self.uri is None:
            return asyncio.run(_ids_in(self.events))
        with MongoClient[dict[str, Any]](self.uri) as client:
            return [one["_id"] for one in client[_DATABASE]["annserve_events"].find({}, {"_id": 1})]


def main() -> int:
    """Write; 1 when something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("file", "mongodb"), action="append", help="both unless said")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--writers", type=int, default=16, help="threads, each with a connection and a call under way")
    parser.add_argument("--batch", type=int, default=50, help="events in a call, 1 to 500")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0, help="workers that are killed, one a second")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = [_run(kind, arguments) for kind in arguments.store or ("file", "mongodb")]
    print_rows(rows, as_json=arguments.json, title=f"{arguments.writers} writers, {arguments.batch} events a call")
    return int(any(row["lost"] or row["twice"] for row in rows))


def _run(kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        place = stack.enter_context(_mongodb(folder) if kind == "mongodb" else _file(folder))
        two_snapshots(folder / "snapshots", ITEMS)
        stores = {
            "EVENTS": place.events,
            "ERASED_USERS": folder / "erased.jsonl",
            "FRESH_ITEMS": folder / "fresh.jsonl",
        }
        environment = {f"ANNSERVE_{setting}": str(path) for setting, path in stores.items()}
        served = stack.enter_context(
            instance(folder / "snapshots", folder, *place.options, workers=arguments.workers, **environment)
        )
        admin = stack.enter_context(AdminClient(served.admin_address))
        until(lambda: len(served.serving(admin)) == arguments.workers, START_SECONDS)
        load = EventLoad(served.address, writers=arguments.writers, batch=arguments.batch)
        begun = time.monotonic()
        with load.going():
            _kill(served, admin, arguments.kills)
            time.sleep(max(arguments.seconds - (time.monotonic() - begun), 0.0))
        seconds = time.monotonic() - begun
        counts = Counter(place.ids())
    p50, p99 = np.percentile(load.seconds, [50, 99]) * 1_000 if load.seconds else (np.nan, np.nan)
    return {
        "store": kind,
        "events/s": len(load.acknowledged) / seconds,
        "calls/s": len(load.seconds) / seconds,
        "p50 ms": p50,
        "p99 ms": p99,
        "acknowledged": len(load.acknowledged),
        "kept": sum(counts.values()),
        "lost": len(set(load.acknowledged) - counts.keys()),
        "twice": sum(count > 1 for count in counts.values()),
        "failed": " ".join(f"{reason}:{count}" for reason, count in load.failures.items()) or "-",
    }


def _kill(served: Instance, admin: AdminClient, kills: int) -> None:
    for _ in range(kills):
        until(lambda: len(served.serving(admin)) > 0, START_SECONDS)
        os.kill(served.serving(admin)[0].pid, signal.SIGKILL)
        time.sleep(KILL_SECONDS)


async def _ids_in(path: Path) -> list[str]:
    store = FileEventStore(path)
    ids = [one.event_id async for chunk in store.read(0, 2**50) for one in chunk]
    await store.close()
    return ids


@contextmanager
def _file(folder: Path) -> Iterator[Place]:
    yield Place(options=(), events=folder / "events.jsonl", uri=None)


@contextmanager
def _mongodb(folder: Path) -> Iterator[Place]:
    config = folder / "catalog.yaml"
    config.write_text(f"mongodb: {{database: {_DATABASE}}}\n")
    with Mongod() as server:
        with MongoClient[dict[str, Any]](server.uri) as client:
            client[_DATABASE]["items"].insert_many([{"_id": item_id(number)} for number in range(ITEMS)])
        options = ("--catalog", server.uri, "--catalog-config", str(config))
        yield Place(options=options, events=folder / "events.jsonl", uri=server.uri)


if __name__ == "__main__":
    sys.exit(main())
