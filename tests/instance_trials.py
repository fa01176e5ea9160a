"""What is done to an instance under load, and what is measured meanwhile: for chaos tests and load tests."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from checked_traffic import Oracle, Traffic, catalogue, percentile_ms
from damaged_snapshots import DAMAGES, damaged
from instances import PROBE_SECONDS, Instance, Probes, instance, until

from annserve.snapshot.store import SnapshotStore
from annserve_client.admin import AdminClient
from annserve_client.errors import AnnserveError

BACK_SECONDS = 20.0
"""How long something that is to come back is waited for; how long it took is measured."""
SWAP_SECONDS = 60.0
SETTLE_SECONDS = 1.0
"""Of load before something is done, for what is normal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """An instance under load and probed."""

    root: Path
    """Of its snapshots."""
    snapshot_ids: tuple[str, ...]
    instance: Instance
    admin: AdminClient
    traffic: Traffic
    probes: Probes


@contextmanager
def rigged(
    root: Path,
    snapshot_ids: Sequence[str],
    folder: Path,
    *,
    workers: int = 2,
    rate: float = 200.0,
    timeout_seconds: float | None = None,
    probe_seconds: float = PROBE_SECONDS,
    catalogue_options: Sequence[str] | None = None,
    **environment: str,
) -> Iterator[Rig]:
    """Run an instance with `checked_traffic`'s catalogue, its load and its probes, for the time of a block.

    Calls may take ``timeout_seconds``, the client's own unless set, and probes ``probe_seconds``. The catalogue is a
    file in ``folder``, unless ``catalogue_options`` name another one with the same contents.
    """
    options = catalogue(folder) if catalogue_options is None else catalogue_options
    environment = {"ANNSERVE_FRESH_ITEMS": str(folder / "fresh_items.jsonl")} | environment
    oracle = Oracle(root, snapshot_ids)
    with (
        instance(root, folder, *options, workers=workers, **environment) as running,
        AdminClient(running.admin_address, timeout_seconds=2.0) as admin,
    ):
        until(lambda: len(running.serving(admin)) == workers, BACK_SECONDS)
        traffic = Traffic(running.address, oracle, rate=rate, timeout_seconds=timeout_seconds)
        with traffic.flowing():
            # Each worker says so in health when it has heard that enough of them serve.
            time.sleep(SETTLE_SECONDS)
            with Probes(running, timeout_seconds=probe_seconds).going() as probes:
                yield Rig(
                    root=root,
                    snapshot_ids=tuple(snapshot_ids),
                    instance=running,
                    admin=admin,
                    traffic=traffic,
                    probes=probes,
                )


def kill_workers(rig: Rig, count: int, interval_seconds: float) -> list[float]:
    """Kill a worker by SIGKILL every so often; return after how many seconds each had a successor that serves."""
    chance = random.Random(count)
    wanted = len(rig.instance.serving(rig.admin))
    back = []
    for _ in range(count):
        begun = time.monotonic()
        victim = chance.choice(rig.instance.serving(rig.admin)).pid
        os.kill(victim, signal.SIGKILL)

        def is_replaced(victim: int = victim) -> bool:
            serving = [worker.pid for worker in rig.instance.serving(rig.admin)]
            return len(serving) == wanted and victim not in serving

        back.append(until(is_replaced, BACK_SECONDS))
        time.sleep(max(begun + interval_seconds - time.monotonic(), 0.0))
    return back


def restart_workers(rig: Rig, count: int) -> None:
    """Have AdminService replace workers, one after another."""
    wanted = len(rig.instance.serving(rig.admin))
    for number in range(count):
        before = rig.instance.serving(rig.admin)
        victim = before[number % len(before)]
        rig.admin.restart_worker(victim.slot)
        until(
            lambda victim=victim: (  # type: ignore[misc]
                len(serving := rig.instance.serving(rig.admin)) == wanted
                and victim.pid not in [worker.pid for worker in serving]
            ),
            BACK_SECONDS,
        )


def kill_keeper(rig: Rig) -> float:
    """Kill the keeper; return after how many seconds AdminService, which is the keeper's, answered again."""
    victim = rig.instance.keeper_pid()
    assert victim is not None
    os.kill(victim, signal.SIGKILL)

    def answers() -> bool:
        # Connected anew each time: a client that is there waits ever longer between its attempts.
        with AdminClient(rig.instance.admin_address, timeout_seconds=0.2) as admin:
            return bool(admin.status()) and rig.instance.keeper_pid() not in (None, victim)

    return until(answers, BACK_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """A swap that has ended."""

    snapshot_id: str
    began: float
    """When ``CURRENT`` was moved, at the latest, on the monotonic clock."""
    ended: float
    """When no worker of the old snapshot was left."""
    seconds: float
    """From ``began`` to the beginning of the last call that the old snapshot answered."""
    pss_bytes: int
    """The most that the instance's processes had together meanwhile."""


def swap(rig: Rig, snapshot_id: str, *, measure_memory: bool = False) -> Swapped:
    """Have ``CURRENT`` name another snapshot, and wait until only that one answers."""
    # As `annserve snapshots` does it; starting that program here would be felt by whoever is measured.
    store = SnapshotStore(rig.root)
    # To and fro: the second of each pair is what was live before.
    if snapshot_id == rig.snapshot_ids[-1]:
        store.activate(snapshot_id)
    else:
        store.roll_back()
    began, peak, looked_at = time.monotonic(), 0, 0.0
    while time.monotonic() < began + SWAP_SECONDS:
        # Rarely: to look stops a process for as long as its pages are counted.
        if measure_memory and time.monotonic() > looked_at + 0.5:
            looked_at = time.monotonic()
            peak = max(peak, sum(pss_bytes(rig.instance).values()))
        try:
            workers = rig.admin.workers()
        except AnnserveError:
            continue
        if workers and all(worker.snapshot_id == snapshot_id for worker in workers):
            break
        time.sleep(0.05)
    else:
        raise TimeoutError(f"{snapshot_id} was not served alone in {SWAP_SECONDS} s")
    ended = time.monotonic()
    # Calls that began before are answered by now; those that begin from now on are what counts.
    time.sleep(0.5)
    old = [call.begun for call in rig.traffic.calls if call.snapshot_id not in ("", snapshot_id)]
    return Swapped(
        snapshot_id=snapshot_id,
        began=began,
        ended=ended,
        seconds=max(max(old, default=began) - began, 0.0),
        pss_bytes=peak,
    )


def swap_to_and_fro(rig: Rig, count: int, *, measure_memory: bool = False) -> list[Swapped]:
    """Swap ``count`` times between the two snapshots, beginning with the one that is not live."""
    first, second = rig.snapshot_ids
    return [swap(rig, second if number % 2 else first, measure_memory=measure_memory) for number in range(count)]


def offer_damaged(rig: Rig, count: int) -> list[str]:
    """Offer damaged snapshots, one after another; return what each was refused with.

    Raises:
        AssertionError: one of them was taken.
    """
    causes = []
    for number in range(count):
        name, damage = list(DAMAGES.items())[number % len(DAMAGES)]
        with damaged(rig.root, rig.snapshot_ids[number % 2], damage, number) as snapshot_id:
            try:
                rig.admin.activate(snapshot_id)
            except AnnserveError as refusal:
                causes.append(f"{name}: {refusal.reason} {refusal.metadata.get('cause', '')}".strip())
                continue
        raise AssertionError(f"taken: {name} (the {number}th)")
    return causes


def pss_bytes(running: Instance) -> Mapping[int, int]:
    """Return the proportional share of memory of each process of an instance, in bytes, by process id."""
    found = {}
    for process in [psutil.Process(running.process.pid), *psutil.Process(running.process.pid).children(recursive=True)]:
        try:
            found[process.pid] = int(process.memory_full_info().pss)
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return found


def p99_ratio(rig: Rig, quiet_until: float, windows: Sequence[tuple[float, float]]) -> float:
    """Return the p99 of calls within ``windows`` beside that of the calls before ``quiet_until``."""
    quiet = percentile_ms([call for call in rig.traffic.calls if call.begun < quiet_until], 99)
    within = [call for begun, ended in windows for call in rig.traffic.between(begun, ended)]
    return round(percentile_ms(within, 99) / quiet, 2) if quiet else 0.0
