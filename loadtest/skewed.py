"""Skewed load beside uniform load, while items of the catalogue change: `instance.py --zipf`.

Of five calls three ask what is similar, one does so under a filter, one for metadata; updates change the field that
the filter tests. Each load has an instance of its own: nothing is kept of the load before. First a closed loop says how
many calls a second it answers. Then calls come at random moments, at `OFFERED_SHARE` of what *uniform* load reached.

That the latencies are those of an open loop at one rate is what makes them comparable. In a closed loop of 32 calls p99
is what 32 calls cost, one upon the other: whoever answers more a second is asked more, each call waits for the others,
and a stop is felt by 32 calls and no more. An open loop goes on asking, and counts from when a call was due. At 60 % of
what uniform load reached, a queue forms when something goes wrong, and not by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import statistics
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import yaml
from instances import Instance, instance
from open_loop import OK, Call, connect, keep_busy, moments_of, send_at
from prometheus_client.parser import text_string_to_metric_families
from pymongo import MongoClient, UpdateOne
from samples import percentile
from scenarios import CATALOGUE_FIELDS, DRAWS, Draw, call_of, catalogue_lines, ids_drawn

from annserve.cli.output import say
from annserve.v1 import filter_pb2, recommendation_pb2
from annserve.v1 import recommendation_service_pb2 as messages
from annserve.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

DATABASE: Final = "annserve_skewed"
CONNECTIONS: Final = 16
IN_FLIGHT: Final = 2
"""Of each connection, in the closed loop."""
OFFERED_SHARE: Final = 0.6
WARM_UP_SECONDS: Final = 3.0
ROUNDS: Final = 3
KINDS: Final = ("plain", "filtered", "metadata")
KIND_SHARES: Final = (0.6, 0.2, 0.2)
IN_STOCK_SHARE: Final = 0.9
BATCH_SECONDS: Final = 0.02
PUBLISHED_SECONDS: Final = 1.5
"""After so long what workers counted is in the metrics."""
SETTLED_SECONDS: Final = 1.0
"""After so long an update is in every answer."""
CHECKED_CALLS: Final = 200

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is the same for the loads that are compared."""

    snapshots: Path
    folder: Path
    uri: str
    item_ids: Sequence[str]
    """All that are in the catalogue."""
    asked_ids: Sequence[str]
    """Those that calls are about, the ones that skewed loads prefer first."""
    workers: int
    cache: str
    """An option: ``--shared-cache`` or ``--no-shared-cache``."""
    updates: int
    """A second."""
    round_seconds: float


def compared(setting: Setting) -> list[Row]:
    """Return a row for each load, the uniform one first."""
    rows: list[Row] = []
    for load, draw in DRAWS.items():
        with _served(setting) as running:
            with updated(setting) as updates_per_second:
                row = asyncio.run(_measured(running, setting, draw, rows[0] if rows else None))
                done = updates_per_second()
            time.sleep(SETTLED_SECONDS)
            row["stale"] = stale_count(running.address, setting.uri, setting.asked_ids)
        told = {"workers": setting.workers, "cache": setting.cache.removeprefix("--"), "updates/s": round(done)}
        rows.append(told | {"load": load} | row)
    return rows


def load_catalogue(uri: str, item_ids: Sequence[str]) -> None:
    """Write a document for each item."""
    with MongoClient[Row](uri) as client:
        items = client[DATABASE]["items"]
        items.drop()
        items.insert_many([{"_id": line.pop("item_id"), **line} for line in catalogue_lines(item_ids)])
        for field in ("in_stock", "price"):
            items.create_index([(field, 1), ("_id", 1)])


def calls(draw: Draw, ids: Sequence[str], seed: int) -> Iterator[Call]:
    """Return calls of all `KINDS` about ``ids`` as ``draw`` chooses them."""
    chance = np.random.default_rng(seed)
    for item_id in ids_drawn(draw, ids, chance):
        yield call_of(request(item_id, chance.choice(KINDS, p=KIND_SHARES)))


def request(item_id: str, kind: str) -> messages.SimilarRequest:
    """Return a question about ``item_id``."""
    options = recommendation_pb2.RecommendOptions()
    if kind == "filtered":
        is_true = filter_pb2.FieldValue(bool_value=True)
        options.filter.condition.CopyFrom(filter_pb2.FieldCondition(field="in_stock", equals=is_true))
    elif kind == "metadata":
        options.read_mask.paths.extend(["name", "price", "in_stock"])
    return messages.SimilarRequest(item_ids=[item_id], options=options if kind != "plain" else None)


@contextmanager
def _served(setting: Setting) -> Iterator[Instance]:
    config = setting.folder / "skewed.yaml"
    config.write_text(yaml.safe_dump({"fields": dict(CATALOGUE_FIELDS), "mongodb": {"database": DATABASE}}))
    options = (setting.cache, "--catalog", setting.uri, "--catalog-config", str(config))
    with instance(setting.snapshots, setting.folder, *options, workers=setting.workers) as running:
        yield running


@contextmanager
def updated(setting: Setting) -> Iterator[Callable[[], float]]:
    """Change items, by a process of its own, for the time of a block; gives what says how many a second changed."""
    if not setting.updates:
        yield lambda: 0.0
        return
    # Not forked: this process has threads of grpc's and pymongo's.
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    process = context.Process(target=_update, args=(setting.uri, list(setting.item_ids), setting.updates, done))
    process.start()
    began, before = time.monotonic(), 0
    try:
        while not done.value:
            time.sleep(0.01)
            if not process.is_alive():
                raise RuntimeError("nothing is updated")
        began, before = time.monotonic(), done.value
        yield lambda: (done.value - before) / (time.monotonic() - began)
    finally:
        process.terminate()
        process.join()


def _update(uri: str, item_ids: Sequence[str], rate: int, done: Any) -> None:
    """Sell out, and stock again, ``rate`` items a second, until ended."""
    chance = np.random.default_rng(2)
    with MongoClient[Row](uri) as client:
        items = client[DATABASE]["items"]
        began = time.monotonic()
        while True:
            due = int((time.monotonic() - began) * rate) - done.value
            if due > 0:
                places, stocked = chance.integers(0, len(item_ids), due), chance.random(due) < IN_STOCK_SHARE
                changes = zip(places.tolist(), stocked.tolist(), strict=True)
                items.bulk_write(
                    [UpdateOne({"_id": item_ids[place]}, {"$set": {"in_stock": has}}) for place, has in changes],
                    ordered=False,
                )
                done.value += due
            time.sleep(BATCH_SECONDS)


async def _measured(running: Instance, setting: Setting, draw: Draw, uniform: Row | None) -> Row:
    """Return what a load comes to, beside the ``uniform`` one; None for that itself."""
    seconds = setting.round_seconds
    asked = calls(draw, setting.asked_ids, seed=0)
    connections = await connect(running.address, CONNECTIONS, timeout_seconds=5.0)
    await keep_busy(connections, asked, 1, WARM_UP_SECONDS)
    busy = await keep_busy(connections, asked, IN_FLIGHT, seconds)
    peak = busy.statuses.count(OK) / seconds
    rate = OFFERED_SHARE * (peak if uniform is None else uniform["peak calls/s"])
    await asyncio.sleep(PUBLISHED_SECONDS)
    before = counted(running)
    chance = np.random.default_rng(1)
    rounds = [await send_at(connections, asked, moments_of(rate, seconds, chance)) for _ in range(ROUNDS)]
    await asyncio.sleep(PUBLISHED_SECONDS)
    counts = {name: count - before.get(name, 0.0) for name, count in counted(running).items()}
    for connection in connections:
        connection.close()
    statuses = list(itertools.chain.from_iterable(outcomes.statuses for outcomes in rounds))
    for status, count in Counter(statuses).items():
        if status != OK:
            say(f"{count} of {len(statuses)} calls ended with status {status}")
    made, p99_ms = len(statuses), _median(rounds, 99)
    looked = sum(count for name, count in counts.items() if name.startswith("cache:"))
    return {
        "peak calls/s": round(peak),
        "offered calls/s": round(rate),
        "p50 ms": _median(rounds, 50),
        "p99 ms": p99_ms,
        "p99 beside uniform": 1.0 if uniform is None else round(p99_ms / uniform["p99 ms"], 2),
        "hit ratio": round(1 - counts.get("cache:miss", 0.0) / looked, 3) if looked else None,
        "database calls a call": round(counts.get("database_calls", 0.0) / made, 4),
        "searches a call": round(counts.get("searches", 0.0) / made, 3),
        "failed": len(statuses) - statuses.count(OK),
    }


def _median(rounds: Sequence[Any], percent: float) -> float:
    found = [percentile(np.array(outcomes.seconds) * 1e3, percent) for outcomes in rounds]
    return round(statistics.median(value for value in found if value is not None), 2)


def counted(running: Instance) -> dict[str, float]:
    """Return what the instance's workers have counted."""
    with urllib.request.urlopen(f"http://{running.ops_address}/metrics", timeout=5.0) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for sample in itertools.chain.from_iterable(family.samples for family in text_string_to_metric_families(text)):
        if sample.name == "annserve_cache_requests_total":
            found[f"cache:{sample.labels['result']}"] = sample.value
        elif sample.name == "annserve_catalog_total":
            found[sample.labels["kind"]] = sample.value
        elif sample.name == "annserve_search_seconds_count":
            found["searches"] = found.get("searches", 0.0) + sample.value
    return found


def stale_count(address: str, uri: str, asked_ids: Sequence[str]) -> int:
    """Return how many items of answers fail their filter, or have metadata that is not the database's.

    Nothing may change meanwhile. Each call is made over a connection of its own, and so reaches any of the workers.
    """
    stale = 0
    with MongoClient[Row](uri) as client:
        in_stock = {one["_id"]: one["in_stock"] for one in client[DATABASE]["items"].find({}, {"in_stock": 1})}
    for number in range(CHECKED_CALLS):
        kind = KINDS[1 + number % 2]
        with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
            asked = request(asked_ids[number // 2 % len(asked_ids)], kind)
            results = RecommendationServiceStub(channel).Similar(asked, timeout=5.0).recommendations.results
        for result in results:
            told = kind == "filtered" or result.metadata["in_stock"].values[0].bool_value
            stale += told is not in_stock[result.item_id]
    return stale
