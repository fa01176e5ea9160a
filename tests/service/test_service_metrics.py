from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from edge_twin import Calls, TwinRecommender
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from annserve.cache.shared import SharedCache
from annserve.domain.errors import UnknownItemError
from annserve.domain.query import CatalogUse, Degradation, Mode, Query, Source
from annserve.keeper.counters import KeeperCounters
from annserve.service.keeper_metrics import follow_keepers
from annserve.service.metrics import Metrics
from annserve.service.process_metrics import follow_process
from annserve.service.server import Server
from annserve.service.settings import ServerSettings
from annserve.service.transport import TransportName
from annserve.v1 import recommendation_service_pb2 as messages

SIMILAR = "annserve.v1.RecommendationService/Similar"
COUNT = "rpc_server_call_duration_seconds_count"

COUNTING = """
import sys
from pathlib import Path
from annserve.service.metrics import Metrics, share_metrics

share_metrics(Path(sys.argv[1]), sys.argv[2])
measure = Metrics().meter("Similar")
for _ in range(int(sys.argv[3])):
    measure("OK", 0.001)
print("counted", flush=True)
sys.stdin.read()
"""


class TwinKeeper:
    def __init__(self) -> None:
        self.counters = KeeperCounters()


class TwinHub:
    def __init__(self) -> None:
        self.keepers: dict[str, TwinKeeper] = {}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def server(twin: TwinRecommender, metrics: Metrics, transport: TransportName) -> AsyncIterator[str]:
    edge = Server(ServerSettings(address="127.0.0.1:0", transport=transport), twin, SharedCache(None), metrics)
    yield await edge.start()
    await edge.stop()


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def calls(metrics: Metrics, code: str) -> float:
    return value(metrics, COUNT, rpc_method=SIMILAR, rpc_response_status_code=code)


async def test_every_call_is_counted_once_under_the_status_its_caller_saw(
    call: Calls, twin: TwinRecommender, metrics: Metrics
) -> None:
    for number in range(7):
        await call("Similar", messages.SimilarRequest(item_ids=[f"item-{number}"]))
    await call.error("Similar", messages.SimilarRequest())
    twin.error = UnknownItemError("a", "b")
    await call.error("Similar", messages.SimilarRequest(item_ids=["item-100"]))
    twin.error = RuntimeError("a fault")
    await call.error("Similar", messages.SimilarRequest(item_ids=["item-102"]))

    assert [calls(metrics, code) for code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL")] == [7, 1, 1, 1]
    assert value(metrics, "annserve_search_seconds_count", path="exact") == 7


async def test_a_call_that_its_caller_gave_up_is_counted_as_cancelled(
    call: Calls, twin: TwinRecommender, metrics: Metrics
) -> None:
    twin.gate, twin.cost_us = threading.Event(), 1e6
    task = asyncio.create_task(call("Similar", messages.SimilarRequest(item_ids=["item-0"])))
    await asyncio.to_thread(twin.entered.wait, 10.0)
    task.cancel()
    async with asyncio.timeout(10.0):
        while not calls(metrics, "CANCELLED"):
            await asyncio.sleep(0.005)
    twin.gate.set()


async def test_results_of_the_cache_are_published(call: Calls, metrics: Metrics) -> None:
    for _ in range(5):
        await call("Similar", messages.SimilarRequest(item_ids=["item-0"]))
    metrics.publish()
    metrics.publish()

    name = "annserve_cache_requests_total"
    assert [value(metrics, name, result=result) for result in ("miss", "worker", "instance")] == [1, 4, 0]


async def test_what_an_answer_had_to_do_without_is_counted(twin: TwinRecommender, metrics: Metrics) -> None:
    answer = await twin.recommend(Query(mode=Mode.SIMILAR, item_ids=("item-0",)))
    metrics.answered(replace(answer, degradations=(Degradation.CATALOG_STALE,), source=Source.POPULAR), 0.001)

    assert value(metrics, "annserve_degraded_total", reason="catalog_stale") == 1
    assert value(metrics, "annserve_fallbacks_total", source="popular") == 1


def test_counts_that_others_keep_are_published_as_they_grow(metrics: Metrics) -> None:
    use = CatalogUse()
    metrics.follow_fields("annserve_catalog", "What answering took of the catalogue.", "kind", use)
    for hits in (0, 3, 3, 8):
        use.bitmap_hits = hits
        metrics.publish()

    assert value(metrics, "annserve_catalog_total", kind="bitmap_hits") == 8
    assert value(metrics, "annserve_catalog_total", kind="database_calls") == 0


def test_counters_of_killed_workers_are_added_up_and_continued_by_their_successors(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))  # type: ignore[no-untyped-call]
    seen = []
    for slot, count in (("worker-0", 30), ("worker-1", 12), ("worker-0", 5)):
        environment = {name: text for name, text in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
        command = [sys.executable, "-c", COUNTING, str(tmp_path), slot, str(count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"counted\n"
            process.send_signal(signal.SIGKILL)
        labels = {"rpc_method": "Similar", "rpc_response_status_code": "OK"}
        seen.append(registry.get_sample_value(COUNT, labels))

    assert seen == [30, 42, 47]
    assert len(list(tmp_path.iterdir())) <= 4


def test_a_process_shows_what_it_takes_of_the_machine(metrics: Metrics) -> None:
    follow_process(metrics, "3")
    metrics.publish()
    before = value(metrics, "process_cpu_seconds_total", process="3")
    while time.process_time() < before + 0.1:
        pass
    metrics.publish()

    assert before > 0.1
    assert value(metrics, "process_cpu_seconds_total", process="3") >= before + 0.05
    assert value(metrics, "process_resident_memory_bytes", process="3") > 10 << 20
    assert value(metrics, "process_open_fds", process="3") >= 3


def test_all_series_of_a_worker_are_few(metrics: Metrics) -> None:
    """Every method meets every status, every answer every path: as bad as it can be."""
    codes = ("OK", "CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")
    for method in ("Similar", "Personalize", "Related", "BatchRecommend"):
        measure = metrics.meter(method)
        for code in (*codes, "FAILED_PRECONDITION"):
            measure(code, 0.001)
    metrics.follow_fields("annserve_catalog", "What answering took of the catalogue.", "kind", CatalogUse())

    series = sum(
        not sample.name.endswith("_created") for family in metrics.registry.collect() for sample in family.samples
    )
    assert series <= 450


async def test_what_keepers_counted_stays_counted_when_the_last_worker_of_a_snapshot_has_gone(metrics: Metrics) -> None:
    first, second = TwinKeeper(), TwinKeeper()
    hub = TwinHub()
    follow_keepers(metrics, hub)
    for keepers, flips in (({"a": first}, (3, 0)), ({"a": first, "b": second}, (5, 2)), ({"b": second}, (5, 6))):
        hub.keepers = keepers
        first.counters.flips, second.counters.flips = flips
        second.counters.rows_without_item = 4
        metrics.publish()

    assert value(metrics, "annserve_keeper_total", kind="flips") == 11
    assert value(metrics, "annserve_index_metadata_drift", kind="rows_without_item") == 4
