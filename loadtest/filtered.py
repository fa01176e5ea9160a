#!/usr/bin/env python3
"""What filters cost: warm, from bitmaps, and cold, by checking candidates with a real MongoDB; beside the naive ways.

For each mode, and for filters that keep from all to a thousandth of the items, at random or correlated with what is
asked: recall@10 against exact filtered search, complete answers, and microseconds a query in the engine. Everything
runs in this process but mongod, which is started for it unless --uri names a server.

    .venv/bin/python loadtest/grown.py --to grown --items 1000000      # once, minutes
    .venv/bin/python loadtest/filtered.py --snapshots grown [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import hnswlib
import numpy as np
from pymongo import MongoClient
from pyroaring import BitMap

from annserve.cache.bitmaps import BitmapCache
from annserve.catalog.config import CatalogConfig
from annserve.catalog.mongo_store import MongoCatalog
from annserve.cli.output import print_json, print_rows, say
from annserve.domain.filter import Filter, Leaf, Range
from annserve.domain.query import Answer, Mode, Options, Query, SearchPath, Source
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.knowledge import Knowledge
from annserve.engine.metadata import MetadataReader
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.keeper.keeper import Keeper
from annserve.search.recipe import Reduction
from annserve.search.restriction import Restriction
from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore

K = 10
DATABASE = "annserve_loadtest"
CONFIG = CatalogConfig.model_validate(
    {
        "fields": {"bucket": "number", "norm_rank": "number", "cluster_rank": "number"},
        "mongodb": {"database": DATABASE, "operation_timeout_ms": 60_000},
    }
)
OVER_FETCH = 100
"""Of the naive way that filters what a fixed over-fetch found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A filter and what it keeps."""

    name: str
    filter: Leaf | None
    rows: BitMap


def main() -> None:
    """Measure, print, leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="a folder with a live snapshot")
    parser.add_argument("--uri", help="a MongoDB server to use; its database annserve_loadtest is overwritten")
    parser.add_argument("--queries", type=int, default=200, help="warm queries a filter and mode")
    parser.add_argument("--cold-queries", type=int, default=15, help="cold queries a filter and mode")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    snapshot = load_current(SnapshotStore(arguments.snapshots)).snapshot
    with mongodb(arguments.uri) as uri:
        cases = loaded_cases(snapshot, uri)
        figures = asyncio.run(measured(snapshot, uri, cases, arguments))
    if arguments.json:
        print_json(figures)
        return
    for title, rows in figures.items():
        print_rows(rows, as_json=False, title=f"{title}: {len(snapshot.items):,} items, k {K}")


@contextmanager
def mongodb(uri: str | None) -> Iterator[str]:
    """Give the address of a server: the one named, or one of the tests' that lives as long as this block."""
    if uri is not None:
        yield uri
        return
    launcher = Path(__file__).parent.parent / "tests" / "mongod.py"
    with subprocess.Popen([sys.executable, str(launcher)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.terminate()


def loaded_cases(snapshot: Snapshot, uri: str) -> list[Case]:
    """Write a document for each item and return the filters to try, with the rows that pass each."""
    count = len(snapshot.items)
    rng = np.random.default_rng(0)
    buckets = rng.permutation(count) * 1_000 // count
    ranks = {
        "bucket": buckets,
        "norm_rank": _rank(snapshot.affinity.points.norms()),
        "cluster_rank": _rank(-(snapshot.item_vectors @ snapshot.item_vectors[snapshot.popular_rows[count // 2]])),
    }
    fields = CONFIG.declared().fields
    cases = [Case(name="100 %", filter=None, rows=BitMap(range(count)))]
    for name, field, below in (
        ("50 % at random", "bucket", 500),
        ("10 % at random", "bucket", 100),
        ("1 % at random", "bucket", 10),
        ("0.1 % at random", "bucket", 1),
        ("50 %, lowest norms", "norm_rank", 500),
        ("10 %, one cluster", "cluster_rank", 100),
        ("1 %, one cluster", "cluster_rank", 10),
    ):
        leaf = Range(fields[field], maximum=float(below), maximum_excluded=True)
        cases.append(Case(name=name, filter=leaf, rows=BitMap(np.flatnonzero(ranks[field] < below).astype(np.uint32))))
    say(f"writing {count:,} documents")
    with MongoClient[dict[str, Any]](uri) as client:
        client.drop_database(DATABASE)
        items = client[DATABASE]["items"]
        for start in range(0, count, 10_000):
            stop = min(start + 10_000, count)
            columns = [ranks[name][start:stop].tolist() for name in ranks]
            items.insert_many(
                [
                    {"_id": snapshot.items.id(row), **dict(zip(ranks, values, strict=True))}
                    for row, *values in zip(range(start, stop), *columns, strict=True)
                ],
                ordered=False,
            )
        for name in ranks:
            items.create_index([(name, 1), ("_id", 1)])
    return cases


def _rank(values: Any) -> Any:
    """Return 0 to 999 for each value: the thousandth of all values that it lies in."""
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values)) * 1_000 // len(values)
    return rank


async def measured(
    snapshot: Snapshot, uri: str, cases: list[Case], arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Return a table for each thing measured."""
    core = SnapshotRecommender(snapshot)
    store, bitmaps = MongoCatalog(uri, CONFIG), BitmapCache()
    keeper = Keeper(store, snapshot.items, bitmaps)
    settings = CatalogSettings(history_ttl_seconds=3_600.0, wait_seconds=10.0)
    workbench = Workbench(ThreadPoolExecutor(1))
    metadata = MetadataReader(store, bitmaps, settings)
    engine = CatalogRecommender(core, workbench, store, bitmaps, keeper, metadata, settings)
    keeper.start()
    try:
        while bitmaps.present is None or bitmaps.stale:
            await asyncio.sleep(0.05)
        warm = [row for mode in Mode for row in await warm_rows(mode, engine, core, keeper, cases, arguments.queries)]
        cold = [
            row
            for mode in Mode
            for row in await cold_rows(mode, engine, core, store, bitmaps, cases[1:], arguments.cold_queries)
        ]
        naive = await naive_rows(snapshot, core, store, cases, arguments.queries)
        return {"warm, from bitmaps": warm, "cold, nothing known": cold, "naive ways, Similar": naive}
    finally:
        await keeper.stop()
        await store.close()


def questions(snapshot: Snapshot, mode: Mode, filter_: Filter | None, count: int) -> list[Query]:
    """Return the same questions for every filter, of items and users drawn at random."""
    rng = np.random.default_rng(1)
    seeds = [(snapshot.items.id(int(row)),) for row in rng.integers(0, len(snapshot.items), count)]
    users = [snapshot.users.id(int(row)) for row in rng.integers(0, len(snapshot.users), count)]
    options = Options(k=K, filter=filter_)
    if mode is Mode.SIMILAR:
        return [Query(mode=mode, item_ids=seed, options=options) for seed in seeds]
    if mode is Mode.PERSONALIZE:
        return [Query(mode=mode, user_id=user, options=options) for user in users]
    return [
        Query(mode=mode, item_ids=seed, user_id=user, options=options) for seed, user in zip(seeds, users, strict=True)
    ]


def quality(core: SnapshotRecommender, case: Case, queries: list[Query], answers: list[Answer]) -> dict[str, Any]:
    """Return recall@k over a part of the answers, and how many of all were complete."""
    knowledge = Knowledge(allowed=Restriction(case.rows, len(core.snapshot.items)))
    found = wanted = 0
    for query, answer in list(zip(queries, answers, strict=True))[:50]:
        exact = core.recommend(replace(query, options=replace(query.options, exact=True)), knowledge=knowledge)
        # Equal scores are equal answers.
        last = min(exact.scores, default=0.0) - 1e-6
        wanted += len(exact.item_ids)
        found += sum(
            item_id in exact.item_ids or score >= last
            for item_id, score in zip(answer.item_ids, answer.scores, strict=True)
        )
    complete = sum(len(answer.item_ids) == K for answer in answers)
    return {"recall@10": round(found / max(wanted, 1), 4), "complete": f"{complete}/{len(answers)}"}


async def warm_rows(
    mode: Mode, engine: CatalogRecommender, core: SnapshotRecommender, keeper: Keeper, cases: list[Case], count: int
) -> list[dict[str, Any]]:
    """Measure filters whose leaf is known."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        if case.filter is not None:
            await keeper.build(case.filter)
        queries = questions(core.snapshot, mode, case.filter, count)
        for query in queries:  # Histories and the filter's rows are known after this.
            await engine.recommend(query)
        answers, seconds = [], []
        for query in queries:
            started = time.perf_counter()
            answers.append(await engine.recommend(query))
            seconds.append(time.perf_counter() - started)
        mean_us = float(np.mean(seconds)) * 1e6
        by_graph = np.mean([answer.search_path is SearchPath.HNSW for answer in answers])
        rows.append(
            {
                "mode": mode.value,
                "passing": case.name,
                "us a query": round(mean_us, 1),
                "queries/s": round(1e6 / mean_us),
                "beside unfiltered": round(mean_us / (rows[0]["us a query"] if rows else mean_us), 2),
                **quality(core, case, queries, answers),
                "by graph": round(float(by_graph), 2),
            }
        )
    return rows


async def cold_rows(
    mode: Mode,
    engine: CatalogRecommender,
    core: SnapshotRecommender,
    store: MongoCatalog,
    bitmaps: BitmapCache,
    cases: list[Case],
    count: int,
) -> list[dict[str, Any]]:
    """Measure filters of which nothing is known, beside what one look-up and the leaf's own query take."""
    rng = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for case in cases:
        if case.filter is None:
            continue
        queries = questions(core.snapshot, mode, case.filter, count)
        seconds, answers = [], []
        for query in queries:
            bitmaps.drop(case.filter)
            started = time.perf_counter()
            answers.append(await engine.recommend(query))
            seconds.append(time.perf_counter() - started)
            while case.filter not in bitmaps.leaves():  # The bitmap is built behind: let it end.
                await asyncio.sleep(0.005)
        ids = core.snapshot.items.ids(rng.integers(0, len(core.snapshot.items), 200))
        look_ups = [await _seconds(partial(store.select, ids, case.filter)) for _ in range(11)]
        leaf_seconds = [await _seconds(partial(_all, store, case.filter)) for _ in range(3)]
        rows.append(
            {
                "mode": mode.value,
                "passing": case.name,
                "p50 ms": round(float(np.median(seconds)) * 1e3, 2),
                "checked": sum(answer.selectivity is None for answer in answers),
                "look-up of 200 ms": round(float(np.median(look_ups)) * 1e3, 2),
                "leaf's query ms": round(float(np.median(leaf_seconds)) * 1e3, 2),
                **quality(core, case, queries, answers),
            }
        )
    return rows


async def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def _all(store: MongoCatalog, leaf: Leaf | None) -> list[str]:
    return [item_id async for chunk in store.matching(leaf) for item_id in chunk]


async def naive_rows(
    snapshot: Snapshot, core: SnapshotRecommender, store: MongoCatalog, cases: list[Case], count: int
) -> list[dict[str, Any]]:
    """Measure what one would write first, Similar alone: the filter known in memory, but for the last way."""
    entry = snapshot.manifest.spaces.likeness
    if entry.recipe is None:
        return []
    augmented = entry.recipe.reduction is Reduction.AUGMENTED_L2
    index = hnswlib.Index(space="l2" if augmented else "ip", dim=snapshot.item_vectors.shape[1] + augmented)
    index.load_index(str(snapshot.path / "likeness.hnsw"))
    items = snapshot.items
    rows: list[dict[str, Any]] = []
    for case in cases:
        queries = questions(snapshot, Mode.SIMILAR, case.filter, count)
        seeds = [items.row(query.item_ids[0]) or 0 for query in queries]
        passing = set(case.rows)
        for name, few in (("fixed over-fetch", count), ("hnswlib callback", min(count, 20)), ("$in of all", 3)):
            if name == "$in of all" and case.filter is None:
                continue
            answers, seconds = [], []
            for seed in seeds[:few]:
                unit = snapshot.item_vectors[seed] / np.linalg.norm(snapshot.item_vectors[seed])
                vector = np.append(unit, np.float32(0)) if augmented else unit
                started = time.perf_counter()
                if name == "fixed over-fetch":
                    index.set_ef(max(entry.recipe.ef_search, OVER_FETCH))
                    labels, _ = index.knn_query(vector, OVER_FETCH, num_threads=1)
                    kept = [row for row in labels[0].tolist() if row in passing and row != seed][:K]
                elif name == "hnswlib callback":
                    index.set_ef(entry.recipe.ef_search)
                    kept = _by_callback(index, vector, passing, seed)
                else:
                    ids = await _all(store, case.filter)
                    allowed = items.rows(ids)[0]
                    scores = snapshot.likeness.score_rows(unit, allowed)
                    best = np.argsort(-scores)[: K + 1]
                    kept = [row for row in allowed[best].tolist() if row != seed][:K]
                seconds.append(time.perf_counter() - started)
                kept_scores = snapshot.likeness.score_rows(unit, np.array(kept, np.int64)).tolist() if kept else []
                answers.append(_answer(items.ids(kept), kept_scores))
            mean_us = float(np.mean(seconds)) * 1e6
            rows.append(
                {
                    "passing": case.name,
                    "way": name,
                    "us a query": round(mean_us, 1),
                    "queries/s": round(1e6 / mean_us),
                    **quality(core, case, queries[: len(answers)], answers),
                }
            )
    return rows


def _by_callback(index: hnswlib.Index, vector: Any, passing: set[int], seed: int) -> list[int]:
    try:
        labels, _ = index.knn_query(vector, K, num_threads=1, filter=lambda row: row in passing and row != seed)
    except RuntimeError:  # Fewer than k were reached.
        return []
    found: list[int] = labels[0].tolist()
    return found


def _answer(item_ids: list[str], scores: list[float]) -> Answer:

    return Answer(
        snapshot_id="naive",
        item_ids=item_ids,
        scores=scores,
        source=Source.ITEM_VECTOR,
        search_path=SearchPath.HNSW,
        selectivity=None,
    )


if __name__ == "__main__":
    main()
