#!/usr/bin/env python3
"""How soon a placement that was saved answers in all workers, while others ask them.

    python loadtest/placement_reload.py              # in a folder
    python loadtest/placement_reload.py --mongodb    # in MongoDB, which is started for it
    python loadtest/placement_reload.py --others 200 # beside so many

Every answer to the others is checked. Fails when the promise of a second, or an answer, is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pymongo import MongoClient

# What the tests stand their instances up with.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from checked_traffic import PRICE_BELOW, catalogue, errors, item_id, percentile_ms, price, two_snapshots
from instance_trials import Rig, rigged
from mongod import Mongod

from annserve.cli.output import print_rows
from annserve_client import Client, NotFoundError, Recommend

VISIBLE_SECONDS_MAX = 1.0
CLIENTS = 12
"""Connections, each to some worker: that one of two workers has none of them is a matter of one in two thousand."""
ITEMS = 3_000
CLASSIC = f"""
mode: similar
where: {{price: {{below: {PRICE_BELOW}}}}}
limit: 20
exclude:
  history: [{{event: disliked, last: 5}}]
"""
_DATABASE = "annserve_placements"

Save = Callable[[str, str], None]
"""Keeps a placement: its name, its YAML."""


def main() -> int:
    """Save placements; 1 when something is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mongodb", action="store_true", help="keep them there, and the catalogue too")
    parser.add_argument("--rounds", type=int, default=50, help="placements to save")
    parser.add_argument("--others", type=int, default=0, help="placements that are there before")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder) / "snapshots"
        snapshot_ids = two_snapshots(root, ITEMS)
        kept = _mongodb(Path(folder)) if arguments.mongodb else _folder(Path(folder))
        save, options, environment = stack.enter_context(kept)
        for number in range(arguments.others):
            save(f"other_{number}", CLASSIC)
        rig = stack.enter_context(
            rigged(
                root,
                snapshot_ids,
                Path(folder),
                workers=arguments.workers,
                catalogue_options=options,
                **environment,
            )
        )
        clients = [stack.enter_context(Client(rig.instance.address)) for _ in range(CLIENTS)]
        seconds = [_seconds_until_served(save, f"saved_{number}", clients) for number in range(arguments.rounds)]
        refused = _seconds_until_refused(save, rig)
    failed, wrong = sum(errors(rig.traffic.calls).values()), len(rig.traffic.invalid)
    p50, p99 = np.percentile(seconds, [50, 99]) * 1_000
    row = {
        "placements": len(seconds),
        "p50 ms": p50,
        "p99 ms": p99,
        "longest ms": max(seconds) * 1_000,
        "a bad one is told ms": refused * 1_000,
    }
    print_rows([row], as_json=arguments.json, title="from saving one until every worker answers by it")
    calls = len(rig.traffic.calls)
    meanwhile = {"calls": calls, "failed": failed, "wrong": wrong, "p99 ms": percentile_ms(rig.traffic.calls, 0.99)}
    print_rows([meanwhile], as_json=arguments.json, title="meanwhile")
    return int(max(seconds) > VISIBLE_SECONDS_MAX or failed > 0 or wrong > 0)


def _seconds_until_served(save: Save, name: str, clients: Sequence[Client]) -> float:
    """Return how long after ``name`` was saved the last of ``clients`` was answered by it."""
    save(name, CLASSIC)
    saved = time.monotonic()
    for client in clients:
        while not _is_served(client, name):
            if time.monotonic() - saved > 10 * VISIBLE_SECONDS_MAX:
                raise TimeoutError(f"{name} is not served by all workers after {10 * VISIBLE_SECONDS_MAX} s")
            time.sleep(0.001)
    return time.monotonic() - saved


def _is_served(client: Client, name: str) -> bool:
    try:
        client.recommend(Recommend(placement=name, item_ids=[item_id(0)]))
    except NotFoundError:
        return False
    return True


def _seconds_until_refused(save: Save, rig: Rig) -> float:
    """Return how long after a bad placement was saved AdminService tells what is wrong with it."""
    save("bad", "mode: nothing")
    saved = time.monotonic()
    while not rig.admin.placements().problems:
        time.sleep(0.005)
    return time.monotonic() - saved


@contextmanager
def _folder(folder: Path) -> Iterator[tuple[Save, list[str], dict[str, Any]]]:
    """Give what saves placements into a folder, and the options and settings of an instance that has them."""
    placements = folder / "placements"
    placements.mkdir()

    def save(name: str, text: str) -> None:
        (placements / f"{name}.yaml").write_text(text, encoding="utf-8")

    yield save, [*catalogue(folder, ITEMS), "--placements", str(placements)], {}


@contextmanager
def _mongodb(folder: Path) -> Iterator[tuple[Save, list[str], dict[str, Any]]]:
    """The same of a server that also has the prices of `checked_traffic`."""
    config = folder / "catalog.yaml"
    config.write_text(f"fields: {{price: number}}\nmongodb: {{database: {_DATABASE}}}\n")
    with Mongod() as server, MongoClient[dict[str, Any]](server.uri) as client:
        database = client[_DATABASE]
        database["items"].insert_many([{"_id": name, "price": price(name)} for name in map(item_id, range(ITEMS))])
        database["items"].create_index([("price", 1), ("_id", 1)])

        def save(name: str, text: str) -> None:
            database["placements"].replace_one({"_id": name}, {"yaml": text}, upsert=True)

        options = ["--catalog", server.uri, "--catalog-config", str(config)]
        yield save, options, {"ANNSERVE_PLACEMENTS_FROM_MONGODB": "true"}


if __name__ == "__main__":
    sys.exit(main())
