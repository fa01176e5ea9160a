"""Events written to whole instances, with each kind of store: nothing acknowledged is lost, and what is kept counts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from checked_traffic import catalogue, item_id, two_snapshots
from event_load import EventLoad
from instances import Instance, instance, until
from mongod import MongoServer
from pymongo import MongoClient

from annserve.catalog.file_events import FileEventStore
from annserve_client import Client, Event, EventType, Options, Source, impression_of, outcome_of
from annserve_client.admin import AdminClient, ErasedUser, HistoryEntry

KILLS = 3
ENOUGH = 300
SECONDS = 30.0
HISTORY_SECONDS = 10.0
CALL_SECONDS = 5.0
"""What a call may take where not speed is the matter: others on the machine hold up any."""
ITEMS = 300


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("events") / "snapshots"
    two_snapshots(root, ITEMS)
    return root


class Kept:
    """A kind of store: the options that have an instance use it, and what is in it."""

    def __init__(self, kind: str, folder: Path, uri: str, database: str) -> None:
        self._events = folder / "events.jsonl"
        self._mongodb = (uri, database) if kind == "mongodb" else None
        self.environment = {
            "ANNSERVE_EVENTS": str(self._events),
            "ANNSERVE_ERASED_USERS": str(folder / "erased_users.jsonl"),
            "ANNSERVE_DRAIN_GRACE_MS": "5000",
        }
        if self._mongodb is None:
            self.options = catalogue(folder, ITEMS)
            return
        config = folder / "catalog.yaml"
        config.write_text(f"mongodb: {{database: {database}}}\n")
        self.options = ["--catalog", uri, "--catalog-config", str(config)]
        with MongoClient[dict[str, Any]](uri) as client:
            client[database]["items"].insert_many([{"_id": item_id(number)} for number in range(ITEMS)])

    def ids(self) -> list[str]:
        """Return the ids of all events that are kept, as often as they are."""
        if self._mongodb is not None:
            uri, database = self._mongodb
            with MongoClient[dict[str, Any]](uri) as client:
                return [one["_id"] for one in client[database]["annserve_events"].find({}, {"_id": 1})]
        return asyncio.run(self._read())

    async def _read(self) -> list[str]:
        store = FileEventStore(self._events)
        ids = [one.event_id async for chunk in store.read(0, 2**50) for one in chunk]
        await store.close()
        return ids


@pytest.fixture(params=["file", "mongodb"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, mongod: MongoServer, database_name: str) -> Kept:
    return Kept(request.param, tmp_path, mongod.uri, database_name)


@contextmanager
def running(snapshots: Path, folder: Path, kept: Kept) -> Iterator[tuple[Instance, AdminClient]]:
    with ExitStack() as stack:
        served = stack.enter_context(instance(snapshots, folder, *kept.options, workers=2, **kept.environment))
        admin = stack.enter_context(AdminClient(served.admin_address))
        until(lambda: len(served.serving(admin)) == 2, SECONDS)
        yield served, admin


def assert_nothing_is_lost(load: EventLoad, ids: Sequence[str]) -> None:
    assert set(load.acknowledged) - set(ids) == set()
    assert set(ids) <= set(load.attempted)
    assert [one for one, count in Counter(ids).items() if count > 1] == []


def test_what_was_acknowledged_is_there_after_workers_were_killed(snapshots: Path, tmp_path: Path, kept: Kept) -> None:
    with running(snapshots, tmp_path, kept) as (served, admin):
        load = EventLoad(served.address)
        with load.going():
            for number in range(1, KILLS + 1):
                until(lambda number=number: len(load.acknowledged) >= ENOUGH * number, SECONDS)  # type: ignore[misc]
                victim = served.serving(admin)[0]
                os.kill(victim.pid, signal.SIGKILL)
                until(lambda victim=victim: victim.pid not in [one.pid for one in admin.workers()], SECONDS)  # type: ignore[misc]
        assert len(load.acknowledged) >= ENOUGH * KILLS

    assert_nothing_is_lost(load, kept.ids())


def test_what_was_acknowledged_is_there_after_the_instance_was_ended(
    snapshots: Path, tmp_path: Path, kept: Kept
) -> None:
    with running(snapshots, tmp_path, kept) as (served, _):
        load = EventLoad(served.address)
        with load.going():
            until(lambda: len(load.acknowledged) >= ENOUGH, SECONDS)
            served.process.send_signal(signal.SIGTERM)
            assert served.process.wait(SECONDS) == 0

    assert len(load.acknowledged) >= ENOUGH
    assert_nothing_is_lost(load, kept.ids())


def test_what_users_do_is_part_of_their_histories(snapshots: Path, tmp_path: Path, kept: Kept) -> None:
    with (
        running(snapshots, tmp_path, kept) as (served, _),
        Client(served.address, timeout_seconds=CALL_SECONDS) as client,
    ):
        options = Options(page_size=5, bypass_cache=True)
        answer = client.personalize("user-1", options=options)
        shown = impression_of(answer, "user-1")
        bought, disliked, seen = (item.item_id for item in answer.results[:3])

        written = client.write_events(
            [
                shown,
                outcome_of(shown, EventType.CONVERSION, [bought], event_id="bought"),
                outcome_of(shown, EventType.DISLIKE, [disliked]),
            ]
        )
        again = client.write_events([shown, outcome_of(shown, EventType.CONVERSION, [bought], event_id="bought")])

        assert (written.accepted_count, again.accepted_count, again.duplicate_count) == (3, 0, 2)

        def found() -> list[str]:
            return [item.item_id for item in client.personalize("user-1", options=options)]

        # The worker that took the events knows it at once, the other within the time that histories are kept.
        until(lambda: bought not in found() and disliked not in found(), HISTORY_SECONDS)
        assert seen in found()


def test_an_erased_user_is_a_stranger_to_all_workers_and_stays_one(snapshots: Path, tmp_path: Path, kept: Kept) -> None:
    user, other = "user-1", "user-2"
    asked, source = Options(page_size=5), Source.USER_VECTOR

    def known(clients: Sequence[Client], user_id: str) -> set[bool]:
        """Return whether workers have a vector of a user, by all of them."""
        answers = [client.personalize(user_id, options=asked) for client in clients for _ in range(3)]
        return {answer.results[0].source is source for answer in answers}

    def clients_of(stack: ExitStack, served: Instance) -> list[Client]:
        return [stack.enter_context(Client(served.address, timeout_seconds=CALL_SECONDS)) for _ in range(6)]

    # Answers are kept for longer than the test takes: none of them may come back.
    kept.environment["ANNSERVE_PERSONAL_ANSWER_TTL_MS"] = "600000"
    with running(snapshots, tmp_path, kept) as (served, admin), ExitStack() as stack:
        clients = clients_of(stack, served)
        assert known(clients, user) == known(clients, other) == {True}
        events = [
            Event(event_id=f"{name}-{number}", type=EventType.IMPRESSION, user_id=name, item_ids=[item_id(number)])
            for name in (user, other)
            for number in range(5)
        ]
        clients[0].write_events(events)
        admin.append_history(user, [HistoryEntry(item_id=item_id(3))])

        erased = admin.erase_user(user)

        assert erased == ErasedUser(history_count=1, event_count=5)
        until(lambda: known(clients, user) == {False}, SECONDS)
        assert known(clients, other) == {True}
        assert sorted(kept.ids()) == [f"{other}-{number}" for number in range(5)]
        # What comes late is of somebody who is not known any more; what she does from now on is her own.
        late = datetime.now(UTC) - timedelta(hours=1)
        again = clients[0].write_events([replace(events[0], event_id="late", time=late)])
        anew = clients[0].write_events([replace(events[0], event_id="anew")])
        assert (again.accepted_count, anew.accepted_count) == (0, 1)
        for worker in admin.workers():
            os.kill(worker.pid, signal.SIGKILL)
        until(lambda: len(served.serving(admin)) == 2 and known(clients, other) == {True}, SECONDS)
        assert known(clients, user) == {False}
    with running(snapshots, tmp_path, kept) as (served, _), ExitStack() as stack:
        clients = clients_of(stack, served)
        assert known(clients, user) == {False}
        assert known(clients, other) == {True}
