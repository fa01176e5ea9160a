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

from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.catalog import Change, ChangesLostError
from annserve.domain.deadline import Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError

OUTAGE_SECONDS = 3.0
CALLERS = 8
HEALED_SECONDS = 2.0


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


@asynccontextmanager
async def traffic_on(catalog: MongoCatalog) -> AsyncIterator[Traffic]:
    traffic = Traffic()
    tasks = [asyncio.create_task(traffic.look_up(catalog)) for _ in range(CALLERS)]
    tasks.append(asyncio.create_task(traffic.follow(catalog)))
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


async def until_listening(port: int) -> None:
    """Return when something listens there; connections are not to be counted by then, this makes some."""
    async with asyncio.timeout(15):
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await asyncio.sleep(0.005)


async def told_through_outages(changes: AsyncIterator[Sequence[Change]]) -> Sequence[Change]:
    """Return the next changes there are, however long the store is unavailable before."""
    while True:
        with contextlib.suppress(CatalogUnavailableError):
            if seen := await anext(changes):
                return seen


async def lived_through(uri: str, port: int, begin: Callable[[], None], end: Callable[[], None], name: str) -> None:
    async with catalog_at(uri, config_of("outages")) as catalog:
        await catalog.upsert([("a", {"price": 1})])
        async with traffic_on(catalog) as traffic:
            # A stream that had never begun could not go on: what it missed is lost, and it says so.
            while not (traffic.following and any(call.outcome == "answered" for call in traffic.calls)):
                await asyncio.sleep(0.01)
            with counted_connections(port) as knocks:
                begun = time.monotonic()
                begin()
                await asyncio.sleep(OUTAGE_SECONDS)
                available_meanwhile = catalog.available
                ended = time.monotonic()
            end()
            await until_listening(port)
            back = time.monotonic()
            await until_answered(catalog)
            healed = time.monotonic() - back
            available_again = catalog.available

    # What is under way when it begins may wait for its own time; from then on nobody waits.
    known = [call for call in traffic.calls if begun + 1.0 <= call.at < ended]
    slowest = max(call.seconds for call in known)
    print(  # noqa: T201 - the figures are what this test is for
        f"\n{name}: {len(known)} calls in {OUTAGE_SECONDS - 1:.0f} s, slowest {slowest * 1e3:.1f} ms; "
        f"connection attempts after {', '.join(f'{knock - begun:.2f}' for knock in knocks)} s; "
        f"healed after {healed:.2f} s"
    )
    assert (available_meanwhile, available_again) == (False, True)
    assert {call.outcome for call in known} == {"unavailable"}
    assert slowest < 0.05
    # In the first second a call and the change stream may find the server gone, and the driver's monitor asks twice.
    assert len([knock for knock in knocks if knock < begun + 1.0]) <= 4
    assert most_in_a_second([knock for knock in knocks if knock >= begun + 1.0]) <= 2
    assert healed < HEALED_SECONDS


async def test_server_that_refuses_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    await lived_through(server.uri, server.port, server.kill, server.launch, "killed")


async def test_frozen_server_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    await lived_through(server.uri, server.port, server.freeze, server.thaw, "frozen")


async def test_silent_network_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    async with Proxy(server.port) as proxy:

        def silence(silent: bool) -> None:
            proxy.silent = silent

        await lived_through(proxy.uri, proxy.port, lambda: silence(True), lambda: silence(False), "silent")


async def test_slow_network_is_knocked_at_gently_and_nobody_waits_for_it(server: Mongod) -> None:
    async with Proxy(server.port) as proxy:

        def delay(seconds: float) -> None:
            proxy.delay_seconds = seconds

        await lived_through(proxy.uri, proxy.port, lambda: delay(2.0), lambda: delay(0.0), "slow")


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
        async with catalog_at(uri, config_of("outages")) as catalog:
            assert catalog.available, "nobody knows better yet"
            for _ in range(2):
                begun = time.monotonic()
                with pytest.raises(CatalogUnavailableError):
                    await catalog.select(["a"])
                assert time.monotonic() - begun < 0.05
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
