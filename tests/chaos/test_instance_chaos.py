"""Whole instances under load while something ends their parts: `loadtest/instance.py` in short."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checked_traffic import errors
from instance_trials import Rig, kill_keeper, kill_workers, offer_damaged, restart_workers, rigged, swap_to_and_fro

Built = tuple[Path, tuple[str, str]]

TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "native"])
"""Where it matters who speaks HTTP/2; the other tests take the default."""

DEADLINE_SECONDS = 1.0
"""What calls may take, on a machine that is busy with tests; the load test uses what clients have by default."""
BACK_SECONDS = 2.0
SLACK_SHARE = 0.01
DRAIN_SECONDS = 1.0
"""How long calls are still taken after TERM."""


def seconds_to_import(module: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.monotonic() - began


def assert_nobody_noticed(rig: Rig) -> None:
    """No call failed, every answer was right, and probes were answered throughout."""
    # A machine that is busy with other tests may keep a call beyond its time; the load test allows none.
    assert sum(errors(rig.traffic.calls).values()) <= len(rig.traffic.calls) * SLACK_SHARE
    assert rig.traffic.invalid == []
    assert len(rig.traffic.calls) > 100
    assert rig.probes.failures == []
    assert rig.probes.count > 10


@TRANSPORTS
def test_nobody_notices_that_workers_are_killed(built: Built, tmp_path: Path, transport: str) -> None:
    with rigged(*built, tmp_path, timeout_seconds=DEADLINE_SECONDS, ANNSERVE_TRANSPORT=transport) as rig:
        back = kill_workers(rig, 6, 1.2)
    assert_nobody_noticed(rig)
    assert max(back) < BACK_SECONDS


@TRANSPORTS
def test_nobody_notices_that_workers_are_restarted_or_the_keeper_is_killed(
    built: Built, tmp_path: Path, transport: str
) -> None:
    with rigged(*built, tmp_path, timeout_seconds=DEADLINE_SECONDS, ANNSERVE_TRANSPORT=transport) as rig:
        restart_workers(rig, 3)
        back = kill_keeper(rig)
    assert_nobody_noticed(rig)
    # It is started from nothing, where a worker is forked: on a slow machine its imports alone take that long.
    assert back < max(BACK_SECONDS, 3 * seconds_to_import("annserve.cli.keeping"))


@TRANSPORTS
def test_a_stopped_instance_answers_what_was_asked_before(built: Built, tmp_path: Path, transport: str) -> None:
    delay_ms = str(round(DRAIN_SECONDS * 1_000))
    with rigged(
        *built,
        tmp_path,
        timeout_seconds=DEADLINE_SECONDS,
        ANNSERVE_DRAIN_DELAY_MS=delay_ms,
        ANNSERVE_TRANSPORT=transport,
    ) as rig:
        told = time.monotonic()
        rig.instance.process.send_signal(signal.SIGTERM)
        assert rig.instance.process.wait(DRAIN_SECONDS + BACK_SECONDS) == 0
    welcome = rig.traffic.between(0.0, told + DRAIN_SECONDS)
    assert len(rig.traffic.between(told, told + DRAIN_SECONDS)) > 50
    assert errors(welcome) == {}
    assert rig.traffic.invalid == []
    # Health spoke the truth: it was well before, and not afterwards.
    assert rig.probes.failures


def test_nobody_notices_that_the_snapshot_changes(built: Built, tmp_path: Path) -> None:
    with rigged(*built, tmp_path, timeout_seconds=DEADLINE_SECONDS) as rig:
        swaps = swap_to_and_fro(rig, 4)
    assert_nobody_noticed(rig)
    assert {call.snapshot_id for call in rig.traffic.calls} == set(built[1])
    for one in swaps:
        after = rig.traffic.between(one.ended, one.ended + 0.4)
        assert {call.snapshot_id for call in after} == {one.snapshot_id}


def test_nobody_notices_that_bad_snapshots_are_offered(built: Built, tmp_path: Path) -> None:
    with rigged(*built, tmp_path, timeout_seconds=DEADLINE_SECONDS) as rig:
        causes = offer_damaged(rig, 10)
    assert_nobody_noticed(rig)
    assert len(causes) == 10
    assert {call.snapshot_id for call in rig.traffic.calls} == {built[1][1]}
