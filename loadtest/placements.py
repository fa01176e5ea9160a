#!/usr/bin/env python3
"""What a placement costs beside the bare call it makes: in the engine, and through gRPC, measured in turns in one run.

The placement has a filter, three rules over item fields or the request alone, diversity and caps, over 200 candidates;
the bare call is the Similar that it asks, shown with the filter too. Then with rules that mix item and request. No
answer is kept. Calls are about items drawn by Zipf(1.1), the same ones for all that are compared. A worker keeps the
candidates of a placement's question, and nothing of a bare call: so the whole is shown twice, as a worker answers it,
and ranked anew at each call, as for an item asked the first time. Exits with 1 when the p50 of the former is over 1.6
times that of the bare call.

    .venv/bin/python loadtest/placements.py [--items 100000] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import os
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
from edge import Asking, cpu_seconds, random_model, serving, taken
from open_loop import Call
from scenarios import call_of, ids_drawn, zipf

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
    parser.add_argument("--transport", choices=["grpcio", "native"], default="grpcio", help="of the calls through gRPC")
    parser.add_argument("--serve", metavar="HOST:PORT", help="only serve what is in --folder there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        settings = ServerSettings(address=arguments.serve, transport=arguments.transport, answer_ttl_ms=0)
        serve(settings, _opened(arguments.folder))
        return
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
        print_rows(calls, as_json=False, title=f"Through gRPC, {arguments.transport}")
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
    ids = items.ids(np.random.default_rng(2).permutation(len(items)))
    command = [sys.executable, __file__, "--folder", str(folder), "--transport", arguments.transport, "--serve"]
    with serving(lambda address: [*command, address]) as (address, pid):
        return asyncio.run(_call_rows(address, pid, ids, arguments))


async def _call_rows(address: str, pid: int, ids: Sequence[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    host, _, port = address.rpartition(":")
    rows: list[dict[str, Any]] = []
    for in_flight, (connections, streams) in IN_FLIGHT.items():
        rules = tuple(placements().placements) if connections == 1 else ("bare", "whole")
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ("Similar", FILTERED, ANEW, *rules)}
        count = arguments.calls if connections > 1 else arguments.calls // 4
        for turn in range(arguments.rounds + 1):
            # The same items for each of those that are compared.
            drawn = ids_drawn(zipf, ids, np.random.default_rng(turn))
            seeds = list(itertools.islice(drawn, count))
            for name, each in found.items():
                calls = [call_of(_request(name, seed)) for seed in seeds]
                one = await _asked(host, int(port), pid, calls, connections, streams)
                if turn:  # The first warms up.
                    each.append(one)
        medians = [
            {
                "in flight": in_flight,
                "asked": name,
                **{key: round(statistics.median(one[key] for one in each), 3) for key in each[0]},
            }
            for name, each in found.items()
        ]
        rows += with_ratios(medians, "p50_ms")
    return rows


async def _asked(
    host: str, port: int, pid: int, calls: Sequence[Call], connections: int, streams: int
) -> dict[str, float]:
    loop, callers = asyncio.get_running_loop(), list[Asking]()
    for number in range(connections):
        begin = functools.partial(Asking, f"{host}:{port}", calls[number::connections])
        callers.append((await loop.create_connection(begin, host, port))[1])
    await asyncio.sleep(0.1)  # The server's settings arrive.
    cpu_before, before = cpu_seconds(pid), time.monotonic()
    for caller in callers:
        caller.ask(len(calls) // connections, streams)
    await asyncio.gather(*(caller.finished for caller in callers))
    seconds, cpu = time.monotonic() - before, cpu_seconds(pid) - cpu_before
    milliseconds = taken(callers)
    for caller in callers:
        caller.close()
    return {
        "calls_per_second": len(milliseconds) / seconds,
        "cpu_us_per_call": cpu / len(milliseconds) * 1e6,
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
    }


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
