#!/usr/bin/env python3
"""How soon all workers know an item that was upserted or deleted, while others ask them.

    python loadtest/fresh_items.py              # kept in a file
    python loadtest/fresh_items.py --mongodb    # kept in MongoDB, which is started for it
    python loadtest/fresh_items.py --items 1000 # so many are there before

Every answer to the others is checked. Fails when the promise of a second, or an answer, is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pymongo import MongoClient

# What the tests stand their instances up with.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from checked_traffic import errors, item_id, percentile_ms, price, two_snapshots
from instance_trials import Rig, rigged
from mongod import Mongod

from annserve.cli.output import print_rows
from annserve_client import Client, Similar
from annserve_client.admin import FreshItem

VISIBLE_SECONDS_MAX = 1.0
CLIENTS = 12
"""Connections, each to some worker: that one of two workers has none of them is a matter of one in two thousand."""
ITEMS, DIMENSION = 3_000, 16
_DATABASE = "annserve_fresh"


def main() -> int:
    """Upsert and delete; 1 when something is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mongodb", action="store_true", help="keep them there, and the catalogue too")
    parser.add_argument("--rounds", type=int, default=200, help="upserts, and as many deletions")
    parser.add_argument("--items", type=int, default=0, help="fresh items that are there before")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder) / "snapshots"
        options = stack.enter_context(_mongodb(Path(folder))) if arguments.mongodb else None
        snapshot_ids = two_snapshots(root, ITEMS)
        rig = stack.enter_context(
            rigged(root, snapshot_ids, Path(folder), workers=arguments.workers, catalogue_options=options)
        )
        clients = [stack.enter_context(Client(rig.instance.address)) for _ in range(CLIENTS)]
        for start in range(0, arguments.items, 1_000):
            rig.admin.upsert_items([_small(f"before-{number}") for number in range(start, start + 1_000)])
        if arguments.items:
            _seconds_until_known(clients, f"before-{arguments.items - 1}", known=True)
        upserted, deleted = _rounds(rig, clients, arguments.rounds)
    failed, wrong = sum(errors(rig.traffic.calls).values()), len(rig.traffic.invalid)
    rows = [_row("upserted", upserted), _row("deleted", deleted)]
    print_rows(rows, as_json=arguments.json, title="from the answer of AdminService until no worker answers otherwise")
    calls = len(rig.traffic.calls)
    meanwhile = {"calls": calls, "failed": failed, "wrong": wrong, "p99 ms": percentile_ms(rig.traffic.calls, 0.99)}
    print_rows([meanwhile], as_json=arguments.json, title="meanwhile")
    return int(max(*upserted, *deleted) > VISIBLE_SECONDS_MAX or failed > 0 or wrong > 0)


def _rounds(rig: Rig, clients: Sequence[Client], count: int) -> tuple[list[float], list[float]]:
    upserted, deleted = [], []
    for number in range(count):
        name = f"fresh-{number}"
        rig.admin.upsert_items([_small(name)])
        upserted.append(_seconds_until_known(clients, name, known=True))
        rig.admin.delete_items([name])
        deleted.append(_seconds_until_known(clients, name, known=False))
    return upserted, deleted


def _small(name: str) -> FreshItem:
    """Return an item too short to be among the best of anything: what the others are answered stays as it was."""
    return FreshItem(item_id=name, vector=[1e-4] * DIMENSION)


def _seconds_until_known(clients: Sequence[Client], name: str, *, known: bool) -> float:
    """Return how long after now the last of ``clients`` was answered by a worker that knows so much."""
    begun = time.monotonic()
    for client in clients:
        while (name not in client.recommend(Similar(item_ids=[name])).missing_ids) != known:
            if time.monotonic() - begun > 10 * VISIBLE_SECONDS_MAX:
                raise TimeoutError(f"{name} is not seen by all workers after {10 * VISIBLE_SECONDS_MAX} s")
            time.sleep(0.001)
    return time.monotonic() - begun


def _row(what: str, seconds: Sequence[float]) -> dict[str, object]:
    p50, p99 = np.percentile(seconds, [50, 99]) * 1_000
    return {"what": what, "times": len(seconds), "p50 ms": p50, "p99 ms": p99, "longest ms": max(seconds) * 1_000}


@contextmanager
def _mongodb(folder: Path) -> Iterator[list[str]]:
    """Run a server that has the prices of `checked_traffic`, and give the options that name it."""
    config = folder / "catalog.yaml"
    config.write_text(f"fields: {{price: number}}\nmongodb: {{database: {_DATABASE}}}\n")
    with Mongod() as server:
        with MongoClient[dict[str, Any]](server.uri) as client:
            items = client[_DATABASE]["items"]
            names = map(item_id, range(ITEMS))
            items.insert_many([{"_id": name, "price": price(name)} for name in names])
            items.create_index([("price", 1), ("_id", 1)])
        yield ["--catalog", server.uri, "--catalog-config", str(config)]


if __name__ == "__main__":
    sys.exit(main())
