#!/usr/bin/env python3
"""What a server does while its catalogue is in trouble: `annserve serve` behind a proxy before a real mongod.

Calls come at a steady rate: without a filter, with a filter known from before, and with one never seen before. Each
fault is provoked in turn; what calls live to see during it is put beside the same time before it. Calls under way when
a fault begins wait for their own time, so the columns "open" leave out its first second and a half.

    .venv/bin/python loadtest/catalog_faults.py [--seconds 10] [--snapshots FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The tests' own servers and traffic; they are no package.
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from mongo_proxy import Proxy, most_in_a_second
from mongod import Mongod
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from served_catalog import Call, Served, Traffic, codes, load_items, served

from annserve.cli.output import print_rows, say
from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

RATES = {"unfiltered": 150.0, "known": 30.0, "unknown": 10.0}
"""Calls a second."""
OPEN_SECONDS = 1.5
HEALED_SECONDS = 30.0
WARM_UP_SECONDS = 3.0
BACK_SECONDS = 60.0
CATALOG_COMMANDS = ["find", "getMore", "aggregate", "explain", "ping", "listIndexes"]


@dataclass(frozen=True, slots=True)
class Rig:
    """What stands behind the server, to be broken."""

    mongod: Mongod
    proxy: Proxy
    seconds: float


Step = Callable[[Rig], Awaitable[None]]


async def until_primary(rig: Rig) -> None:
    """Return as soon as mongod takes writes."""
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            try:
                if (await _told(rig, {"hello": 1})).get("isWritablePrimary"):
                    return
            except PyMongoError:
                pass
            await asyncio.sleep(0.02)


async def _told(rig: Rig, command: dict[str, Any]) -> dict[str, Any]:
    async with AsyncMongoClient[dict[str, Any]](rig.mongod.direct_uri, serverSelectionTimeoutMS=500) as client:
        return await client.admin.command(command)


async def stop(rig: Rig) -> None:
    """Stop mongod, so that nothing listens any more."""
    rig.proxy.refuse()
    await asyncio.to_thread(rig.mongod.stop)


async def start(rig: Rig) -> None:
    """Start mongod, and let nobody in before it takes writes."""
    rig.mongod.launch()
    await until_primary(rig)
    await rig.proxy.listen()


async def restart(rig: Rig) -> None:
    """Stop and start mongod in plain sight."""
    await asyncio.to_thread(rig.mongod.stop)
    rig.mongod.launch()
    await until_primary(rig)


async def step_down(rig: Rig) -> None:
    """Leave the replica set without a primary for the time of the fault."""
    await _told(rig, {"replSetStepDown": round(rig.seconds), "secondaryCatchUpPeriodSecs": 0, "force": True})


def fails_commands(code: int) -> Step:
    """Return the step that has every command of the catalogue fail with ``code``."""

    async def step(rig: Rig) -> None:
        # By name of the application, so that nobody else is refused.
        data = {"failCommands": CATALOG_COMMANDS, "errorCode": code, "appName": "annserve"}
        await _told(rig, {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})

    return step


async def answer_commands(rig: Rig) -> None:
    """Take `fails_commands` back."""
    await _told(rig, {"configureFailPoint": "failCommand", "mode": "off"})


async def nothing(_: Rig) -> None:
    """Wait for what ends by itself."""


def does(action: Callable[[Rig], None]) -> Step:
    """Return ``action`` as a step."""

    async def step(rig: Rig) -> None:
        action(rig)

    return step


def sets(name: str, value: float | bool) -> Step:
    """Return the step that has the proxy behave so."""
    return does(lambda rig: setattr(rig.proxy, name, value))


FAULTS: dict[str, tuple[Step, Step]] = {
    "none": (nothing, nothing),
    "refused": (stop, start),
    "accepted, then silent": (sets("silent", True), sets("silent", False)),
    "frozen": (does(lambda rig: rig.mongod.freeze()), does(lambda rig: rig.mongod.thaw())),
    "2 s slower": (sets("delay_seconds", 2.0), sets("delay_seconds", 0.0)),
    "reset mid-reply": (sets("resets", True), sets("resets", False)),
    "restart": (restart, nothing),
    "no primary": (step_down, until_primary),
    "not authenticated": (fails_commands(18), answer_commands),
    "not authorised": (fails_commands(13), answer_commands),
    "overloaded": (fails_commands(462), answer_commands),
}


def main() -> None:
    """Provoke, measure, print, leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshots", type=Path, help="a folder with a live snapshot; by default the demo's")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each fault, and of the time before it")
    parser.add_argument("--only", choices=FAULTS, action="append", help="this fault alone; may be repeated")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, snapshots_in(arguments.snapshots, Path(scratch)) as folder:
        rows = asyncio.run(measured(folder, Path(scratch), arguments))
    print_rows(rows, as_json=arguments.json, title=f"faults of {arguments.seconds:g} s; ms, calls a second as {RATES}")


@contextmanager
def snapshots_in(folder: Path | None, scratch: Path) -> Iterator[Path]:
    """Give ``folder``, or a new one with the demo's snapshot."""
    if folder is None:
        folder = scratch / "snapshots"
        say("training on the bundled data")
        command = [sys.executable, "-m", "annserve.cli", "train", "--demo", "--snapshots", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    yield folder


async def measured(folder: Path, scratch: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each fault."""
    items = load_current(SnapshotStore(folder)).snapshot.items
    item_ids = items.ids(np.arange(len(items)))
    rows = []
    with Mongod() as mongod:
        load_items(mongod.uri, item_ids)
        async with Proxy(mongod.port) as proxy, running(folder, proxy.uri, scratch) as server:
            rig = Rig(mongod, proxy, arguments.seconds)
            traffic = Traffic(server.address, item_ids, RATES)
            async with traffic.flowing():
                await traffic.until_healthy(HEALED_SECONDS)
                await asyncio.sleep(WARM_UP_SECONDS)
                for name in arguments.only or FAULTS:
                    say(f"{name}: {arguments.seconds:g} s before it")
                    rows.append(await lived_through(name, rig, server, traffic))
    return rows


@asynccontextmanager
async def running(folder: Path, uri: str, scratch: Path) -> AsyncIterator[Served]:
    """Run the server; the proxy, on this event loop, has to go on while it starts and stops."""
    context = served(folder, uri, scratch)
    server = await asyncio.to_thread(context.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def lived_through(name: str, rig: Rig, server: Served, traffic: Traffic) -> dict[str, Any]:
    """Return what calls lived to see before, during and after a fault."""
    begin, end = FAULTS[name]
    before = time.monotonic()
    await asyncio.sleep(rig.seconds)
    begun = time.monotonic()
    await begin(rig)
    if begin is not restart:  # It is over when mongod is back.
        await asyncio.sleep(max(begun + rig.seconds - time.monotonic(), 0.0))
    ended = time.monotonic()
    await end(rig)
    back = time.monotonic()
    try:
        healed: float | None = await traffic.until_healthy(HEALED_SECONDS) - back
    except TimeoutError:
        healed = None
    over = time.monotonic()
    opened = begun + OPEN_SECONDS
    knocks = server.knocks_between(begun, ended)
    known, unknown = traffic.of("known", opened, ended), traffic.of("unknown", opened, ended)
    refused = [call for call in unknown if call.code == "UNAVAILABLE"]
    everything = [call for call in traffic.calls if begun <= call.begun < over]
    quiet, during = (p99_ms(traffic.of("unfiltered", *time_)) for time_ in ((before, begun), (begun, ended)))
    return {
        "fault": name,
        "unfiltered p99 before": quiet,
        "during": during,
        "ratio": ratio(during, quiet),
        "unfiltered OK": share(traffic.of("unfiltered", begun, over), lambda call: call.code == "OK"),
        "known OK": share(traffic.of("known", begun, over), lambda call: call.code == "OK"),
        "marked, open": share(known, lambda call: call.degraded),
        "unknown": " ".join(f"{code} {count}" for code, count in codes(traffic.of("unknown", begun, ended)).items()),
        "UNAVAILABLE p99, open": p99_ms(refused),
        "INTERNAL or UNKNOWN": sum(call.code in ("INTERNAL", "UNKNOWN") for call in everything),
        "attempts a s": round(len(knocks) / max(ended - begun, 1e-9), 2),
        "most in a s": most_in_a_second(knocks),
        "healed s": None if healed is None else round(healed, 2),
    }


def p99_ms(calls: list[Call]) -> float | None:
    """Return the 99th percentile of how long calls took."""
    return round(float(np.percentile([call.seconds for call in calls], 99)) * 1e3, 2) if calls else None


def ratio(one: float | None, other: float | None) -> float | None:
    """Return the one as a multiple of the other."""
    return None if one is None or other is None else round(one / other, 2)


def share(calls: list[Call], test: Callable[[Call], bool]) -> float | None:
    """Return the share of calls that pass."""
    return round(sum(map(test, calls)) / len(calls), 4) if calls else None


if __name__ == "__main__":
    main()
