#!/usr/bin/env python3
"""What a placement costs beside the bare call it makes: in the engine, and through gRPC, measured in turns in one run.

The placement has a filter, three rules over item fields or the request alone, diversity and caps, over 200 candidates;
the bare call is the Similar that it asks, shown with the filter too. Then with rules that mix item and request. No
answer is kept. A worker keeps the candidates of a placement's question, and nothing of a bare call: so the whole is
shown twice, as it is asked again and again for one item, and ranked anew at each call, as for an item asked the first
time. Exits with 1 when the p50 of the former is over 1.6 times that of the bare call.

    .venv/bin/python loadtest/placements.py [--items 100000] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from edge import METHOD_PATH, drive, random_model, serving, write_body

from annserve.catalog.config import CatalogConfig
from annserve.cli.catalog_source import CatalogSource
from annserve.cli.composition import opened_service
from annserve.cli.output import print_json, print_rows
from annserve.domain.filter import Equals
from annserve.domain.placements import PlacementText
from annserve.domain.query import Mode, Options, Placed, Query
from annserve.placements.loading import compiled_set
from annserve.placements.recipe import PlacementSet
from annserve.service.server import Served, serve
from annserve.service.settings import ServerSettings
from annserve.settings import Settings
from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore
from annserve.v1 import recommendation_service_pb2 as messages

RATIO_MAX = 1.6
RECOMMEND_PATH = METHOD_PATH.replace("Similar", "Recommend")
ENGINE_QUERIES = 300
FILTERED = "Similar, filtered"
ANEW = "whole, ranked anew"
IN_FLIGHT = {"one call": (1, 1), "32 calls": (4, 8)}

CONFIG = CatalogConfig.model_validate(
    {"fields": {"status": "string", "stock": "number", "price": "number", "author": "string", "likes": "number"}}
)
BARE = "mode: similar"
WHOLE = """
mode: similar
where: {status: okay}
context: {device: string}
demotions:
  - {when: item.stock == 0, weight: 0.5}
boosts:
  - {when: item.price < 20, weight: 1.2}
  - {when: 'context.device == "phone"', weight: 1.1}
diversity: 0.3
caps:
  - {field: author, at_most: 2}
"""
MIXED = """  - {when: 'item.likes > 500 && context.device == "phone"', weight: 1.05}
  - {when: 'item.likes < 200 && score > 0.5', weight: 1.04}
  - {when: 'item.likes > 900 || context.device == "watch"', weight: 1.03}
"""


def main() -> None:
    """Measure, print, leave nothing running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000, help="how many items the random snapshot has")
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="where the snapshot and the catalogue are kept for the next run")
    parser.add_argument("--calls", type=int, default=2_000, help="calls a round")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each, in turns; the median counts")
    parser.add_argument("--serve", metavar="HOST:PORT", help="only serve what is in --folder there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(ServerSettings(address=arguments.serve, answer_ttl_ms=0), _opened(arguments.folder))
        return
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: `apt-get install nghttp2-client`, or `brew install nghttp2`")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        if not (folder / "items.parquet").exists():
            make(folder, arguments.items, arguments.dimension)
        engine = asyncio.run(engine_rows(folder))
        calls = call_rows(folder, arguments)
    whole = next(row for row in calls if row["asked"] == "whole" and row["in flight"] == "one call")
    if arguments.json:
        print_json({"engine": engine, "calls": calls, "ratio_max": RATIO_MAX})
    else:
        print_rows(engine, as_json=False, title="In the engine, microseconds of this process")
        print_rows(calls, as_json=False, title="Through gRPC")
    if whole["p50 ratio"] > RATIO_MAX:
        sys.exit(f"a placement's p50 is {whole['p50 ratio']} times the bare call's, more than {RATIO_MAX}")


def placements() -> PlacementSet:
    """Return what is measured, compiled from files."""
    mixed = {
        f"mixed-{count}": WHOLE.replace("diversity", "".join(MIXED.splitlines(keepends=True)[:count]) + "diversity")
        for count in (1, 2, 3)
    }
    texts = {"bare": BARE, "whole": WHOLE, **mixed}
    sources = [PlacementText(name=name, origin=f"{name}.yaml", text=text) for name, text in texts.items()]
    return compiled_set(sources, CONFIG.declared())


def make(folder: Path, item_count: int, dimension: int) -> None:
    """Build a snapshot of random vectors, and a catalogue of its items."""
    build_snapshot(random_model(item_count, dimension), SnapshotStore(folder / "snapshots"))
    random = np.random.default_rng(2)
    table = pa.table(
        {
            "item_id": [f"item-{number:07}" for number in range(item_count)],
            "status": np.where(random.random(item_count) < 0.9, "okay", "gone"),
            "stock": random.integers(0, 10, item_count),
            "price": random.integers(0, 100, item_count),
            "author": [f"author-{number}" for number in random.integers(0, item_count // 20, item_count)],
            "likes": random.integers(0, 1_000, item_count),
        }
    )
    pq.write_table(table, folder / "items.parquet")


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[Served]:
    snapshot = load_current(SnapshotStore(folder / "snapshots")).snapshot
    source = CatalogSource(address=str(folder / "items.parquet"), config=CONFIG, histories=folder / "histories.sqlite")
    known = placements()
    async with opened_service(snapshot, Settings(), source, placements=lambda: known) as served:
        yield served


async def engine_rows(folder: Path) -> list[dict[str, Any]]:
    """Return microseconds of processor time an answer takes, asked as Similar and of each placement, in turns."""
    items = load_current(SnapshotStore(folder / "snapshots")).snapshot.items
    seeds = [items.id(int(row)) for row in np.random.default_rng(1).integers(0, len(items), ENGINE_QUERIES)]
    filtered = Options(filter=Equals(CONFIG.declared().fields["status"], "okay"))
    asked: dict[str, Callable[[str], Query]] = {
        "Similar": lambda seed: Query(mode=Mode.SIMILAR, item_ids=(seed,)),
        FILTERED: lambda seed: Query(mode=Mode.SIMILAR, item_ids=(seed,), options=filtered),
    }
    for name in placements().placements:
        context = {} if name == "bare" else {"device": "phone"}
        placed = Placed(placement=name, context=context)
        asked[name] = lambda seed, placed=placed: Query(mode=Mode.PLACEMENT, item_ids=(seed,), placed=placed)  # type: ignore[misc]
        if name == "whole":
            asked[ANEW] = lambda seed, placed=placed: Query(  # type: ignore[misc]
                mode=Mode.PLACEMENT, item_ids=(seed,), placed=placed, options=Options(bypass_cache=True)
            )
    spent: dict[str, list[float]] = {name: [] for name in asked}
    async with _opened(folder) as served:
        recommender = served.recommender
        for turn in range(6):
            for name, query_of in asked.items():
                queries = [query_of(seed) for seed in seeds]
                began = time.process_time()
                for query in queries:
                    answer = await recommender.recommend(query)
                if turn:  # The first reads what was not known.
                    spent[name].append((time.process_time() - began) / len(queries) * 1e6)
                    if len(answer.item_ids) < 10 or answer.degradations:
                        raise RuntimeError(f"{name} is not answered as it should be: {answer}")
                else:
                    await asyncio.sleep(0.5)
    return with_ratios([{"asked": name, "us": round(statistics.median(one), 1)} for name, one in spent.items()], "us")


def call_rows(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return calls a second, processor time and latency of each, asked in turns of one server."""
    items = load_current(SnapshotStore(folder / "snapshots")).snapshot.items
    seeds = [items.id(int(row)) for row in np.random.default_rng(2).integers(0, len(items), arguments.rounds + 1)]
    scratch = Path(tempfile.mkdtemp(dir=folder))
    rows: list[dict[str, Any]] = []
    command = [sys.executable, __file__, "--folder", str(folder), "--serve"]
    with serving(lambda address: [*command, address]) as (address, pid):
        for in_flight, (connections, streams) in IN_FLIGHT.items():
            rules = tuple(placements().placements) if connections == 1 else ("bare", "whole")
            names = ("Similar", FILTERED, ANEW, *rules)
            found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for turn, seed in enumerate(seeds):
                for name in names:
                    path = METHOD_PATH if name.startswith("Similar") else RECOMMEND_PATH
                    body = write_body(scratch / "body", _request(name, seed))
                    calls = arguments.calls if connections > 1 else arguments.calls // 4
                    one = drive(address, pid, body, calls, connections, streams, path)
                    if turn:  # The first warms up.
                        found[name].append(one)
            medians = [
                {
                    "in flight": in_flight,
                    "asked": name,
                    **{key: statistics.median(one[key] for one in each) for key in each[0]},
                }
                for name, each in found.items()
            ]
            rows += with_ratios(medians, "p50_ms")
    shutil.rmtree(scratch)
    return rows


def _request(name: str, seed: str) -> messages.SimilarRequest | messages.RecommendRequest:
    if name.startswith("Similar"):
        similar = messages.SimilarRequest(item_ids=[seed])
        if name == FILTERED:
            similar.options.filter.condition.field = "status"
            similar.options.filter.condition.equals.string_value = "okay"
        return similar
    request = messages.RecommendRequest(placement="whole" if name == ANEW else name, item_ids=[seed])
    request.options.consistency.bypass_cache = name == ANEW
    if name != "bare":
        request.context["device"].string_value = "phone"
    return request


def with_ratios(rows: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return ``rows`` with what ``key`` is beside the first one's."""
    name = f"{key.removesuffix('_ms')} ratio"
    return [row | {name: round(row[key] / rows[0][key], 2)} for row in rows]


if __name__ == "__main__":
    main()
