from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import edge
import pytest

from annserve.snapshot.build import build_snapshot
from annserve.snapshot.snapshot import Snapshot, load_current
from annserve.snapshot.store import SnapshotStore

ROUND = Namespace(calls=800, rounds=1, connections=2, streams=2)
"""So many calls that they take more than the clock's tick of 10 ms."""
PROMISED = [
    "transport",
    "server",
    "workers",
    "calls_per_second",
    "cpu_us_per_call",
    "p50_ms",
    "p99_ms",
    "alone_p50_ms",
    "half_peak_p99_ms",
    "half_peak_refused",
    "of_ceiling",
]


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("snapshots")
    build_snapshot(edge.random_model(1_500, 8), SnapshotStore(root), threads=1)
    return root


@pytest.fixture(scope="module")
def snapshot(snapshots: Path) -> Snapshot:
    return load_current(SnapshotStore(snapshots)).snapshot


def test_hnswlib_and_the_engine_are_rows_like_any_others(snapshot: Snapshot) -> None:
    rows = edge.rows_without_transport(snapshot)

    assert [row.server for row in rows] == [
        edge.ONE_BY_ONE,
        "hnswlib, 1,000 at a time",
        "annserve's engine, no server",
    ]
    assert [list(asdict(row)) for row in rows] == [PROMISED] * len(rows)
    single, batched, engine = (row.cpu_us_per_call for row in rows)
    assert 0 < batched < engine, "a batch crosses into native code once in a thousand queries"
    assert 0 < single < engine
    assert rows[0].calls_per_second == pytest.approx(1e6 / single, rel=1e-3)


@pytest.mark.parametrize("server", ["empty", "bare", "an afternoon's"])
def test_a_server_of_each_kind_answers_and_is_measured(server: str, snapshots: Path, snapshot: Snapshot) -> None:
    commands: dict[str, edge.Command] = {
        "empty": lambda address: [sys.executable, edge.STAND_IN, "empty", address],
        "bare": lambda address: [sys.executable, edge.STAND_IN, "bare", address, "--snapshots", str(snapshots)],
        "an afternoon's": lambda address: [
            *(sys.executable, edge.BASELINE, address, str(snapshots), edge.NO_MONGODB, "none")
        ],
    }

    figures = edge.measured(commands[server], edge.requests_of(snapshot, ROUND.calls, None), ROUND)

    row = edge.Row(transport="grpcio", server=server, workers=1, **figures)
    assert row.cpu_us_per_call > 0
    assert row.half_peak_refused == 0.0
