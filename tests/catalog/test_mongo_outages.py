"""A server that is gone, frozen, silent or slow: what callers see, how often it is knocked at, how soon it is back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from mongo_catalogs import catalog_at, config_of, told
from mongo_proxy import Proxy, counted_connections, most_in_a_second
from mongod import Mongod
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import Change, ChangesLostError
from annserve.domain.deadline import Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError

TIMEOUT_MS = 500
"""How long a look-up may take: one that is under way when an outage begins is cut off 0.85 s later."""
NOTICED_SECONDS = 1.25
"""Before the driver's monitor would have noticed, which takes 1.5 s and more here."""
KNOWN_SECONDS = 2.0
"""How long an outage lasts once it has been noticed, and the first second is over."""
CALLERS = 8
HEALED_SECONDS = 2.5
"""1.85 by design: a probe that began just before takes 0.85 s, and the next comes a second later."""
TICK_SECONDS = 0.01


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    """A server that tests may do anything to, as long as it runs when they are over."""
    with Mongod() as own:
        yield own


@dataclass
class Call:
    at: float
    seconds: float
    outcome: str


@dataclass
class Traffic:
    """What callers and a follower of changes live to see. Whatever else is raised fails the test."""

    calls: list[Call] = field(default_factory=list)
    lags: list[tuple[float, float]] = field(default_factory=list)
    """When somebody who only sleeps woke up, and how much too late: the machine's doing, or this event loop's."""
    changes: int = 0
    following: bool = False

    async def look_up(self, catalog: MongoCatalog) -> None:
        while True:
            begun = time.monotonic()
            try:
                await catalog.select(["a", "b"], deadline=Deadline.after(0.2))
                outcome = "answered"
            except CatalogUnavailableError:
                outcome = "unavailable"
            except DeadlineExceededError:
                outcome = "too late"
            self.calls.append(Call(begun, time.monotonic() - begun, outcome))
            await asyncio.sleep(0.01)

    async def follow(self, catalog: MongoCatalog) -> None:
        changes = catalog.changes()
        while True:
            try:
                self.changes += len(await anext(changes))
                self.following = True
            except CatalogUnavailableError:
                continue

    async def tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            self.lags.append((now, now - due))

    def longest_lag(self, begun: float, ended: float) -> float:
        return max((lag for at, lag in self.lags if begun <= at <= ended + lag), default=0.0)


@asynccontextmanager
async def traffic_on(catalog: MongoCatalog) -> AsyncIterator[Traffic]:
    traffic = Traffic()
    tasks = [asyncio.create_task(traffic.look_up(catalog)) for _ in range(CALLERS)]
    tasks += [asyncio.create_task(traffic.follow(catalog)), asyncio.create_task(traffic.tick())]
    try:
        yield traffic
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome


async def until_answered(catalog: MongoCatalog, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                await catalog.select(["a"])
                return
            except CatalogUnavailableError:
                await asyncio.sleep(0.005)


async def until_primary(server: Mongod) -> None:
    """Return when the server takes writes: for a while before it listens, and is nobody that could be read from."""

    def is_primary() -> bool:
        with (
            contextlib.suppress(PyMongoError),
            MongoClient[dict[str, Any]](server.direct_uri, serverSelectionTimeoutMS=200) as client,
        ):
            return bool(client.admin.command("hello")["isWritablePrimary"])
        return False

    async with asyncio.timeout(15):
        while not await asyncio.to_thread(is_primary):
            await asyncio.sleep(0.005)


async def told_through_outages(changes: AsyncIterator[Sequence[Change]]) -> Sequence[Change]:
    """Return the next changes there are, however long the store is unavailable before."""
    while True:
        with contextlib.suppress(CatalogUnavailableError):
            if seen := await anext(changes):
                return seen


async def lived_through(
    server: Mongod, uri: str, port: int, begin: Callable[[], None], end: Callable[[], None], name: str
) -> None:
    async with catalog_at(uri, config_of("outages", operation_timeout_ms=TIMEOUT_MS)) as catalog:
        await catalog.upsert([("a", {"price": 1})])
        async with traffic_on(catalog) as traffic:
            # A stream that had never begun could not go on: what it missed is lost, and it says so.
            while not (traffic.following and any(call.outcome == "answered" for call in traffic.calls)):
                await asyncio.sleep(0.01)
            with counted_connections(port) as knocks:
                begun = time.monotonic()
                begin()
                async with asyncio.timeout(5):
                    while catalog.available:
                        await asyncio.sleep(TICK_SECONDS)
                noticed = time.monotonic()
                settled = max(begun + 1.0, noticed)
                await asyncio.sleep(settled + KNOWN_SECONDS - noticed)
                available_meanwhile = catalog.available
                ended = time.monotonic()
            end()
            await until_primary(server)
            back = time.monotonic()
            await until_answered(catalog)
            healed = time.monotonic() - back
            available_again = catalog.available
            await asyncio.sleep(2 * TICK_SECONDS)  # So that whatever held this up shows in the lags.

    # What is under way when it begins may wait for its own time; from then on nobody waits.
    known = [call for call in traffic.calls if settled <= call.at < ended]
    slowest, lag = max(call.seconds for call in known), traffic.longest_lag(settled, ended)
    print(  # noqa: T201 - the figures are what this test is for
        f"\n{name}: noticed after {noticed - begun:.2f} s; {len(known)} calls in {ended - settled:.1f} s, "
        f"slowest {slowest * 1e3:.1f} ms, longest lag {lag * 1e3:.1f} ms; "
        f"connection attempts after {', '.join(f'{knock - begun:.2f}' for knock in knocks)} s; "
        f"healed after {healed:.2f} s"
    )
    assert noticed - begun < NOTICED_SECONDS + traffic.longest_lag(begun, noticed)
    assert (available_meanwhile, available_again) == (False, True)
    assert {call.outcome for call in known} == {"unavailable"}
    assert slowest < 0.05 + lag
    # In the first second a call and the change stream may find the server gone, and the driver's monitor asks twice.
    assert len([knock for knock in knocks if knock < settled]) <= 4
    assert most_in_a_second([knock for knock in knocks if knock >= settled]) <= 2
    assert healed < HEALED_SECONDS + traffic.longest_lag(back, back + healed)


async def test_server_that_refuses_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    await lived_through(server, server.uri, server.port, server.kill, server.launch, "killed")


async def test_frozen_server_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    await lived_through(server, server.uri, server.port, server.freeze, server.thaw, "frozen")


async def test_silent_network_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    async with Proxy(server.port) as proxy:

        def silence(silent: bool) -> None:
            proxy.silent = silent

        await lived_through(server, proxy.uri, proxy.port, lambda: silence(True), lambda: silence(False), "silent")


async def test_slow_network_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    async with Proxy(server.port) as proxy:

        def delay(seconds: float) -> None:
            proxy.delay_seconds = seconds

        await lived_through(server, proxy.uri, proxy.port, lambda: delay(2.0), lambda: delay(0.0), "slow")


async def test_changes_during_an_outage_are_told_after_it(server: Mongod) -> None:
    async with catalog_at(server.uri, config_of("outages")) as catalog:
        changes = catalog.changes()
        await anext(changes)
        await catalog.upsert([("before", {})])
        await told(changes, 1)
        server.kill()
        with pytest.raises(CatalogUnavailableError):
            await told(changes, 1)
        server.launch()
        with MongoClient[dict[str, Any]](server.uri) as client:
            client["outages"]["items"].replace_one({"_id": "meanwhile"}, {"price": 2}, upsert=True)

        seen = await told_through_outages(changes)

    assert seen == [Change(item_id="meanwhile", document={"_id": "meanwhile", "price": 2})]


async def test_changes_that_could_not_be_followed_from_the_start_count_as_lost(server: Mongod) -> None:
    async with catalog_at(server.uri, config_of("outages")) as catalog:
        changes = catalog.changes()
        server.kill()
        with pytest.raises(CatalogUnavailableError):
            await anext(changes)
        server.start()
        with pytest.raises(ChangesLostError):
            await told_through_outages(changes)


async def test_rights_withdrawn_for_a_while_end_no_stream(server: Mongod) -> None:
    unauthorized = {"failCommands": ["aggregate", "getMore"], "errorCode": 13, "appName": "annserve"}
    async with catalog_at(server.uri, config_of("outages")) as catalog:
        changes = catalog.changes()
        await anext(changes)
        with MongoClient[dict[str, Any]](server.direct_uri) as client:
            client.admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=unauthorized)
            try:
                for _ in range(2):
                    with pytest.raises(CatalogUnavailableError):
                        await told(changes, 1)
                client["outages"]["items"].replace_one({"_id": "meanwhile"}, {"price": 2}, upsert=True)
            finally:
                client.admin.command("configureFailPoint", "failCommand", mode="off")

        seen = await told_through_outages(changes)

    assert seen == [Change(item_id="meanwhile", document={"_id": "meanwhile", "price": 2})]


async def test_server_that_never_was_there_is_unavailable_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        uri = f"mongodb://127.0.0.1:{nobody.getsockname()[1]}/"
        # Whoever waited would do so for three seconds, if not five.
        async with catalog_at(uri, config_of("outages", operation_timeout_ms=5_000)) as catalog:
            assert catalog.available, "nobody knows better yet"
            for _ in range(2):
                begun = time.monotonic()
                with pytest.raises(CatalogUnavailableError):
                    await catalog.select(["a"])
                assert time.monotonic() - begun < 1.0
            assert not catalog.available


async def test_caller_who_leaves_costs_no_connection(server: Mongod) -> None:
    async with catalog_at(server.uri, config_of("outages", pool_size=2)) as catalog:
        await catalog.select(["a"])
        with counted_connections(server.port) as knocks:
            for _ in range(50):
                call = asyncio.create_task(catalog.select(["a"]))
                await asyncio.sleep(0.001)
                call.cancel()
            await until_answered(catalog)

    assert len(knocks) <= 2
