"""Trouble behind a served catalogue, provoked: by the proxy before mongod, by signals to it, by its fail points."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mongo_proxy import Proxy
from mongod import Mongod
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from served_catalog import CALL_SECONDS, Call, Served, Traffic, load_items, served

OPEN_SECONDS = 1.5
"""So long after an outage began, calls that wait for their own time are over, and what is known counts as stale."""
HEALED_SECONDS = 30.0
BACK_SECONDS = 60.0
COMMANDS = ["find", "getMore", "aggregate", "explain", "ping", "listIndexes"]


@dataclass(frozen=True, slots=True)
class Rig:
    """A server under traffic, and what stands behind it to be broken."""

    mongod: Mongod
    proxy: Proxy
    server: Served
    traffic: Traffic


Step = Callable[[Rig, float], Awaitable[None]]
"""Begins or ends an outage, which is to last so many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What calls lived to see of an outage. Moments are of the monotonic clock."""

    traffic: Traffic
    quiet: float
    """When the time before it began that it is compared with."""
    begun: float
    whole: float
    """When the step that began it was done; until then MongoDB may answer some."""
    ended: float
    over: float
    """When all was well again, or nobody waited for that any more."""
    knocks: Mapping[int, Sequence[float]]
    """Attempts to connect to MongoDB, by process."""
    """When the server tried to connect to MongoDB while that was in trouble."""
    healed_seconds: float | None
    """How long after MongoDB was back all was well; None for never."""

    def before(self, kind: str) -> list[Call]:
        """Return the calls of a kind in the time before."""
        return self.traffic.of(kind, self.quiet, self.begun)

    def during(self, kind: str) -> list[Call]:
        """Return the calls of a kind while it lasted."""
        return self.traffic.of(kind, self.begun, self.ended)

    def settled(self, kind: str) -> list[Call]:
        """Return the calls of a kind once it was known to the server."""
        return self.traffic.of(kind, self.begun + OPEN_SECONDS, self.ended)

    def since_shown(self, kind: str) -> list[Call]:
        """Return the calls of a kind that began once the answer to another one had shown that the server knew."""
        showing = [call for call in self.during(kind) if call.degraded or call.code == "UNAVAILABLE"]
        moments = [call.begun + call.seconds for call in showing]
        return self.traffic.of(kind, min([at for at in moments if at > self.whole], default=self.ended), self.ended)

    def all(self, kind: str) -> list[Call]:
        """Return the calls of a kind until all was well."""
        return self.traffic.of(kind, self.begun, self.over)


@asynccontextmanager
async def rigged(
    mongod: Mongod,
    snapshots: Path,
    item_ids: Sequence[str],
    folder: Path,
    rates: dict[str, float],
    timeout_seconds: float = CALL_SECONDS,
) -> AsyncIterator[Rig]:
    """Run a server with ``item_ids`` in its catalogue, behind a proxy, under traffic; each call has so long."""
    load_items(mongod.uri, item_ids)
    async with Proxy(mongod.port) as proxy:
        # The proxy, on this event loop, has to go on while the server starts and stops.
        context = served(snapshots, proxy.uri, folder)
        server = await asyncio.to_thread(context.__enter__)
        try:
            traffic = Traffic(server.address, item_ids, rates, timeout_seconds)
            async with traffic.flowing():
                await traffic.until_healthy(HEALED_SECONDS)
                yield Rig(mongod, proxy, server, traffic)
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


async def lived_through(name: str, rig: Rig, seconds: float, quiet_seconds: float) -> Outage:
    """Provoke one of `OUTAGES` after a quiet time, and return when all is well again."""
    begin, end = OUTAGES[name]
    quiet = time.monotonic()
    await asyncio.sleep(quiet_seconds)
    begun = time.monotonic()
    await begin(rig, seconds)
    whole = time.monotonic()
    await asyncio.sleep(max(begun + seconds - time.monotonic(), 0.0))
    ended = time.monotonic()
    await end(rig, seconds)
    back = time.monotonic()
    try:
        healed: float | None = await rig.traffic.until_healthy(HEALED_SECONDS) - back
    except TimeoutError:
        healed = None
    return Outage(
        traffic=rig.traffic,
        quiet=quiet,
        begun=begun,
        whole=whole,
        ended=ended,
        over=time.monotonic(),
        knocks=rig.server.knocks_between(begun, ended),
        healed_seconds=healed,
    )


async def _until_primary(rig: Rig, _: float = 0.0) -> None:
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            try:
                if (await _told(rig, {"hello": 1})).get("isWritablePrimary"):
                    return
            except PyMongoError:
                pass
            await asyncio.sleep(0.02)


async def _told(rig: Rig, command: dict[str, Any]) -> dict[str, Any]:
    def tell() -> dict[str, Any]:
        # Not the asynchronous client, which leaves sockets to the garbage collector when a server is not there.
        with MongoClient[dict[str, Any]](rig.mongod.direct_uri, serverSelectionTimeoutMS=500) as client:
            return client.admin.command(command)

    return await asyncio.to_thread(tell)


async def _refuse(rig: Rig, _: float) -> None:
    rig.proxy.refuse()
    await asyncio.to_thread(rig.mongod.stop)


async def _listen(rig: Rig, _: float) -> None:
    """Start mongod, and let nobody in before it takes writes."""
    rig.mongod.launch()
    await _until_primary(rig)
    await rig.proxy.listen()


async def _stop_in_sight(rig: Rig, _: float) -> None:
    """Stop mongod behind a proxy that goes on taking connections, and closes them."""
    await asyncio.to_thread(rig.mongod.stop)


async def _start_in_sight(rig: Rig, _: float) -> None:
    """Start mongod, and have it seen before it takes writes."""
    rig.mongod.launch()
    await _until_primary(rig)


async def _step_down(rig: Rig, seconds: float) -> None:
    """Leave the replica set without a primary until it elects the only one there is."""
    await _told(rig, {"replSetStepDown": round(seconds), "secondaryCatchUpPeriodSecs": 0, "force": True})


def _does(action: Callable[[Rig], None]) -> Step:
    async def step(rig: Rig, _: float) -> None:
        action(rig)

    return step


def _sets(name: str, value: float | bool) -> Step:
    """Return the step that has the proxy behave so."""
    return _does(lambda rig: setattr(rig.proxy, name, value))


def _fails(code: int) -> Step:
    """Return the step that has every command of the catalogue fail with ``code``."""

    async def step(rig: Rig, _: float) -> None:
        # By name of the application, so that nobody else's fail.
        data = {"failCommands": COMMANDS, "errorCode": code, "appName": "annserve"}
        await _told(rig, {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})

    return step


async def _answer(rig: Rig, _: float) -> None:
    await _told(rig, {"configureFailPoint": "failCommand", "mode": "off"})


OUTAGES: dict[str, tuple[Step, Step]] = {
    "none": (_does(lambda _: None), _does(lambda _: None)),
    "refused": (_refuse, _listen),
    "accepted, then silent": (_sets("silent", True), _sets("silent", False)),
    "frozen": (_does(lambda rig: rig.mongod.freeze()), _does(lambda rig: rig.mongod.thaw())),
    "2 s slower": (_sets("delay_seconds", 2.0), _sets("delay_seconds", 0.0)),
    "reset mid-reply": (_sets("resets", True), _sets("resets", False)),
    "restart": (_stop_in_sight, _start_in_sight),
    "no primary": (_step_down, _until_primary),
    "not authenticated": (_fails(18), _answer),
    "not authorised": (_fails(13), _answer),
    "overloaded": (_fails(462), _answer),
}
"""How each begins, and how it ends."""
