"""Whole instances under load while something ends their parts: `loadtest/instance.py` in short."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from checked_traffic import Call, errors
from instance_trials import Rig, kill_keeper, kill_workers, offer_damaged, restart_workers, rigged, swap_to_and_fro
from instances import STOP_SECONDS

Built = tuple[Path, tuple[str, str]]

TRANSPORTS = pytest.mark.parametrize("transport", ["grpcio", "native"])
"""Where it matters who speaks HTTP/2; the other tests take the default."""

DEADLINE_SECONDS = 1.0
"""What calls may take, on a machine that is busy with tests; the load test uses what clients have by default."""
PROBE_SECONDS = 3.0
"""What probes may take: that they are answered throughout is what counts. The load test gives them Kubernetes' 1 s."""
BACK_SECONDS = 2.0
SLACK_SHARE = 0.01
DRAIN_SECONDS = 1.5
"""How long calls are still taken after TERM."""
WELCOME_SECONDS = 1.0
"""Calls that begin so long after TERM get there before that is over, whatever the machine does meanwhile."""
PATIENT_SECONDS = 5.0
"""What calls may take of which not one may fail."""


def seconds_to_import(module: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.monotonic() - began


def watched(built: Built, folder: Path, **options: Any) -> AbstractContextManager[Rig]:
    """Run an instance in which nobody may notice anything."""
    return rigged(*built, folder, timeout_seconds=DEADLINE_SECONDS, probe_seconds=PROBE_SECONDS, **options)


def snapshots_of(calls: Iterable[Call]) -> set[str]:
    """Return the snapshots that ``calls`` were answered from; of one without an answer nothing can be told."""
    return {call.snapshot_id for call in calls if not call.error}


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
    with watched(built, tmp_path, ANNSERVE_TRANSPORT=transport) as rig:
        back = kill_workers(rig, 6, 1.2)
    assert_nobody_noticed(rig)
    usual = statistics.median(back)
    assert usual < BACK_SECONDS
    # One may come in a moment in which the machine stalls.
    assert max(back) < max(BACK_SECONDS, 3 * usual)


@TRANSPORTS
def test_nobody_notices_that_workers_are_restarted_or_the_keeper_is_killed(
    built: Built, tmp_path: Path, transport: str
) -> None:
    with watched(built, tmp_path, ANNSERVE_TRANSPORT=transport) as rig:
        restart_workers(rig, 3)
        back = kill_keeper(rig)
    assert_nobody_noticed(rig)
    # It is started from nothing, where a worker is forked: on a slow machine its imports alone take that long.
    assert back < max(BACK_SECONDS, 3 * seconds_to_import("annserve.cli.keeping"))


@TRANSPORTS
def test_a_stopped_instance_answers_what_was_asked_before(built: Built, tmp_path: Path, transport: str) -> None:
    delay_ms = str(round(DRAIN_SECONDS * 1_000))
    # A call that is never answered would be waited for longer than the instance is here.
    grace_ms = str(round(2 * STOP_SECONDS * 1_000))
    with rigged(
        *built,
        tmp_path,
        timeout_seconds=PATIENT_SECONDS,
        ANNSERVE_DRAIN_DELAY_MS=delay_ms,
        ANNSERVE_DRAIN_GRACE_MS=grace_ms,
        ANNSERVE_TRANSPORT=transport,
    ) as rig:
        told = time.monotonic()
        rig.instance.process.send_signal(signal.SIGTERM)
        assert rig.instance.process.wait(STOP_SECONDS) == 0
    welcome = rig.traffic.between(0.0, told + WELCOME_SECONDS)
    assert len(rig.traffic.between(told, told + WELCOME_SECONDS)) > 50
    assert errors(welcome) == {}
    assert rig.traffic.invalid == []
    # Health spoke the truth: it was well before, and not afterwards.
    assert rig.probes.failures


def test_nobody_notices_that_the_snapshot_changes(built: Built, tmp_path: Path) -> None:
    with watched(built, tmp_path) as rig:
        swaps = swap_to_and_fro(rig, 4)
    assert_nobody_noticed(rig)
    assert snapshots_of(rig.traffic.calls) == set(built[1])
    for one in swaps:
        assert snapshots_of(rig.traffic.between(one.ended, one.ended + 0.4)) == {one.snapshot_id}


def test_nobody_notices_that_bad_snapshots_are_offered(built: Built, tmp_path: Path) -> None:
    with watched(built, tmp_path) as rig:
        causes = offer_damaged(rig, 10)
    assert_nobody_noticed(rig)
    assert len(causes) == 10
    assert snapshots_of(rig.traffic.calls) == {built[1][1]}
