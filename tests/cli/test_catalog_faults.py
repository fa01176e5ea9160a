"""A served catalogue that is gone, frozen or restarted: `loadtest/catalog_faults.py` in short."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from mongo_proxy import most_in_a_second
from mongod import Mongod
from outages import OPEN_SECONDS, Outage, lived_through, rigged
from served_catalog import CALL_SECONDS, codes

from annserve.snapshot.snapshot import load_current
from annserve.snapshot.store import SnapshotStore

RATES = {"unfiltered": 60.0, "known": 30.0, "unknown": 30.0}
HEALED_SECONDS = 2.0
SLACK = 2.0
"""What a loaded machine may add; the load test holds the server to the figures themselves."""
OUTAGE_SECONDS = OPEN_SECONDS * SLACK
"""By the end of it the server must have found out."""
TIMEOUT_SECONDS = 2.0
"""For calls of which not one may fail, though the machine may keep some of them beyond a client's own deadline."""
PROVOKED = ["refused", "frozen", "restart"]


@pytest.fixture(scope="module")
def outages(snapshots: Path, trained: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outage]:
    """What was lived to see of each."""
    assert trained
    items = load_current(SnapshotStore(snapshots)).snapshot.items
    item_ids = [items.id(row) for row in range(len(items))]
    folder = tmp_path_factory.mktemp("outages")

    async def provoked(mongod: Mongod) -> dict[str, Outage]:
        async with rigged(mongod, snapshots, item_ids, folder, RATES, TIMEOUT_SECONDS) as rig:
            return {name: await lived_through(name, rig, OUTAGE_SECONDS, 0.0) for name in PROVOKED}

    with Mongod() as mongod:
        return asyncio.run(provoked(mongod))


@pytest.fixture(params=PROVOKED)
def outage(request: pytest.FixtureRequest, outages: dict[str, Outage]) -> Outage:
    return outages[request.param]


def test_calls_without_a_filter_do_not_notice(outage: Outage) -> None:
    calls = outage.all("unfiltered")
    assert set(codes(calls)) == {"OK"}
    # A machine that stalls holds up a few; were MongoDB waited for, it would be more.
    assert sorted(call.seconds for call in calls)[len(calls) * 95 // 100] < CALL_SECONDS * SLACK


def test_calls_with_a_known_filter_are_answered_and_say_that_the_catalogue_is_stale(outage: Outage) -> None:
    assert set(codes(outage.all("known"))) == {"OK"}
    assert {call.degraded for call in outage.since_shown("known")} == {True}


def test_calls_with_an_unknown_filter_are_unavailable_and_know_it_soon(outage: Outage) -> None:
    assert set(codes(outage.all("unknown"))) <= {"OK", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
    calls = outage.since_shown("unknown")
    assert set(codes(calls)) == {"UNAVAILABLE"}
    assert sorted(call.seconds for call in calls)[len(calls) // 2] < 0.05 * SLACK


def test_mongodb_is_knocked_at_at_most_twice_a_second(outage: Outage) -> None:
    for knocks in outage.knocks.values():
        # Connections that break at once are each tried again by who had them, once.
        assert len([knock for knock in knocks if knock < outage.begun + 1.0]) <= 4
        assert most_in_a_second([knock for knock in knocks if knock >= outage.begun + 1.0]) <= 2


def test_all_is_well_soon_after_mongodb_is_back(outage: Outage) -> None:
    assert outage.healed_seconds is not None
    assert outage.healed_seconds < HEALED_SECONDS * SLACK
