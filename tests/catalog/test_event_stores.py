"""Events are kept once, found again and forgotten, whichever store keeps them: one contract for all."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mongo_catalogs import config_of
from mongod import Mongod, MongoServer
from pymongo import MongoClient

from annserve.catalog import event_lines
from annserve.catalog.file_events import FileEventStore
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.deadline import Deadline
from annserve.domain.errors import CatalogUnavailableError, DeadlineExceededError
from annserve.domain.events import OUTCOMES, Event, EventStore, EventType, ShownItem
from annserve.domain.query import Mode, PlacementUse
from annserve.snapshot.files import locked

NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
SECONDS = 5.0


class Stores:
    """Stores that keep the same events, as the processes of an instance have them."""

    def __init__(self, kind: str, folder: Path, uri: str, database: str) -> None:
        self._where = kind, folder, uri, database
        self.opened: list[EventStore] = []
        self.catalogs: list[MongoCatalog] = []

    def open(self) -> EventStore:
        kind, folder, uri, database = self._where
        store: EventStore
        if kind == "file":
            store = FileEventStore(folder / "data" / "events.jsonl")
        else:
            catalog = MongoCatalog(uri, config_of(database))
            self.catalogs.append(catalog)
            store = catalog.event_store()
        self.opened.append(store)
        return store


@pytest.fixture(params=["file", "mongodb"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, mongod: MongoServer, database_name: str
) -> AsyncIterator[Stores]:
    stores = Stores(request.param, tmp_path, mongod.uri, database_name)
    yield stores
    for store in stores.opened:
        await store.close()
    for catalog in stores.catalogs:
        await catalog.close()


def event(event_id: str, user_id: str = "u", *item_ids: str, at: int = 0, **more: Any) -> Event:
    return Event(
        event_id=event_id,
        type=more.pop("type", EventType.IMPRESSION),
        user_id=user_id,
        item_ids=item_ids or ("a",),
        time_ms=NOW_MS + at,
        **more,
    )


async def everything(store: EventStore, since_ms: int = 0, until_ms: int = NOW_MS + DAY_MS) -> list[Event]:
    return [one async for chunk in store.read(since_ms, until_ms) for one in chunk]


async def test_events_come_back_as_they_were_written_ordered_by_time(stores: Stores) -> None:
    use = PlacementUse(
        name="home", version="0f", experiment="e", variant="B", mode=Mode.RELATED, user_context_similarity=-0.25
    )
    shown = event("1", "사용자", "b", "a", at=5, placement=use, context_item_ids=("c",), impression_id="i")
    bought = event("2", "사용자", "a", at=-5, type=EventType.CONVERSION, value=12.5)

    written = await stores.open().write([shown, bought])

    assert (written.accepted_count, written.duplicate_count, written.duplicate_places) == (2, 0, ())
    assert await everything(stores.open()) == [bought, shown]


async def test_of_events_with_one_id_the_first_is_kept(stores: Stores) -> None:
    first, second = event("1", "u", "a"), event("1", "u", "b")
    await stores.open().write([first, event("2")])

    written = await stores.open().write([second, event("3"), event("3", "v"), event("2")])

    assert (written.accepted_count, written.duplicate_count, written.duplicate_places) == (1, 3, (0, 2, 3))
    assert {one.event_id: one for one in await everything(stores.open())}["1"] == first


async def test_processes_that_write_the_same_at_once_keep_it_once(stores: Stores) -> None:
    events = [event(str(number), at=number) for number in range(200)]
    writers = [stores.open() for _ in range(4)]

    async def write(store: EventStore, shift: int) -> int:
        rotated = events[shift:] + events[:shift]
        parts = [rotated[start : start + 20] for start in range(0, len(rotated), 20)]
        return sum([(await store.write(part)).accepted_count for part in parts])

    accepted = await asyncio.gather(*(write(store, 50 * number) for number, store in enumerate(writers)))

    assert sum(accepted) == len(events)
    assert await everything(stores.open()) == events


async def test_a_span_of_time_has_its_beginning_and_not_its_end(stores: Stores) -> None:
    store = stores.open()
    await store.write([event(str(at), at=at) for at in (0, 1, 2, 3)])

    found = await everything(store, NOW_MS + 1, NOW_MS + 3)

    assert [one.event_id for one in found] == ["1", "2"]


async def test_a_users_newest_events_of_some_types_come_latest_first(stores: Stores) -> None:
    store = stores.open()
    kinds = [EventType.CLICK, EventType.IMPRESSION, EventType.DISLIKE, EventType.CONVERSION, EventType.LIKE]
    await store.write([event(str(number), at=-number, type=kind) for number, kind in enumerate(kinds)])
    await store.write([event("other", "v", type=EventType.CLICK)])

    found = await stores.open().of_user("u", 3, OUTCOMES)

    assert [one.event_id for one in found] == ["0", "2", "3"]
    assert await store.of_user("nobody", 3) == []


async def test_only_the_types_that_are_asked_for_are_read(stores: Stores) -> None:
    store = stores.open()
    await store.write([event(type_.value, at=at, type=type_) for at, type_ in enumerate(EventType)])

    chunks = [chunk async for chunk in store.read(0, NOW_MS + DAY_MS, (EventType.LIKE, EventType.CLICK))]

    assert [one.event_id for chunk in chunks for one in chunk] == ["click", "like"]


async def test_shown_items_come_once_with_the_time_of_their_latest_showing(stores: Stores) -> None:
    store = stores.open()
    await store.write([event("1", "u", "a", "b", at=1), event("2", "u", "c", "a", at=2), event("3", "v", "x", at=3)])
    await store.write([event("4", "u", "y", at=4, type=EventType.CLICK)])

    assert await stores.open().shown("u", 10) == [
        ShownItem(item_id="c", time_ms=NOW_MS + 2),
        ShownItem(item_id="a", time_ms=NOW_MS + 2),
        ShownItem(item_id="b", time_ms=NOW_MS + 1),
    ]
    assert [item.item_id for item in await store.shown("u", 2)] == ["c", "a"]


async def test_what_another_process_wrote_is_seen_by_one_that_has_looked_before(stores: Stores) -> None:
    reader, writer = stores.open(), stores.open()
    assert await reader.shown("u", 5) == []

    await writer.write([event("1", "u", "a")])

    assert [item.item_id for item in await reader.shown("u", 5)] == ["a"]


async def test_an_erased_user_has_no_events_and_others_keep_theirs(stores: Stores) -> None:
    store, other = stores.open(), stores.open()
    await store.write([event("1"), event("2", "v"), event("3", type=EventType.LIKE)])
    assert len(await other.of_user("u", 5)) == 2

    assert await store.erase_user("u") == 2

    assert await other.of_user("u", 5) == []
    assert [one.event_id for one in await everything(other)] == ["2"]
    assert await store.erase_user("u") == 0
    assert (await store.write([event("4")])).accepted_count == 1


async def test_nothing_is_read_where_nothing_was_written(stores: Stores) -> None:
    store = stores.open()
    await store.maintain(30)

    assert await everything(store) == []
    assert (await store.write([])).accepted_count == 0


async def test_a_deadline_that_has_passed_ends_a_look_up(stores: Stores) -> None:
    store = stores.open()
    await store.write([event("1")])

    with pytest.raises(DeadlineExceededError):
        await store.of_user("u", 5, deadline=Deadline.after(-1))


LETTERS = st.characters(exclude_categories=["Cc", "Cs"])
IDS = st.text(LETTERS, min_size=1, max_size=20)
PLACEMENTS = st.builds(
    PlacementUse,
    name=IDS,
    version=IDS,
    experiment=st.text(LETTERS, max_size=5),
    mode=st.sampled_from([None, *Mode]),
    user_context_similarity=st.none() | st.floats(-1, 1),
)
EVENTS = st.builds(
    Event,
    event_id=IDS,
    type=st.sampled_from(EventType),
    user_id=IDS,
    item_ids=st.lists(IDS, min_size=1, max_size=4).map(tuple),
    time_ms=st.integers(0, NOW_MS),
    attribution_token=st.just("") | IDS,
    impression_id=st.just("") | IDS,
    placement=st.none() | PLACEMENTS,
    context_item_ids=st.lists(IDS, max_size=3).map(tuple),
    value=st.floats(allow_nan=False, allow_infinity=False),
)


@given(events=st.lists(EVENTS, max_size=8, unique_by=lambda one: one.event_id))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_an_event_says_is_kept(stores: Stores, events: list[Event]) -> None:
    store = stores.open()
    for user_id in {one.user_id for one in await everything(store)}:
        await store.erase_user(user_id)

    await store.write(events)

    found = await everything(store)
    assert sorted(found, key=lambda one: one.event_id) == sorted(events, key=lambda one: one.event_id)
    assert [one.time_ms for one in found] == sorted(one.time_ms for one in events)


class TestFile:
    """What only a file can do wrong."""

    async def test_a_line_that_was_cut_off_is_passed_over_and_spoils_none(self, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        store = FileEventStore(path)
        await store.write([event("1")])
        with path.open("ab") as file:
            file.write(path.read_bytes()[:40])

        await store.write([event("2", at=1)])

        assert [one.event_id for one in await everything(FileEventStore(path))] == ["1", "2"]
        await store.close()

    async def test_events_older_than_is_kept_are_dropped(self, tmp_path: Path) -> None:
        store = FileEventStore(tmp_path / "events.jsonl")
        await store.write([event("old", at=-11 * DAY_MS), event("young", at=-9 * DAY_MS)])

        await store.maintain(10)

        assert [one.event_id for one in await everything(store)] == ["young"]
        await store.close()

    async def test_ids_are_compared_with_the_newest_that_are_remembered(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_lines, "EVENTS_REMEMBERED", 3)
        store = FileEventStore(tmp_path / "events.jsonl")
        await store.write([event(str(number), f"u{number % 2}") for number in range(5)])

        assert (await store.write([event("2"), event("3"), event("4")])).duplicate_count == 3
        assert (await store.write([event("1")])).accepted_count == 1
        assert await store.of_user("u0", 5) != []
        await store.close()

    async def test_of_a_long_log_the_end_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "events.jsonl"
        writer = FileEventStore(path)
        await writer.write([event(str(number), at=number) for number in range(50)])
        monkeypatch.setattr(event_lines, "TAIL_BYTES", path.stat().st_size // 2 + 7)

        store = FileEventStore(path)

        assert (await store.write([event("49")])).duplicate_count == 1
        assert 20 < len(await store.of_user("u", 100)) < 30
        assert len(await everything(store)) == 50
        await store.close()
        await writer.close()

    async def test_a_file_that_cannot_be_written_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "events.jsonl").mkdir()
        store = FileEventStore(tmp_path / "events.jsonl")

        with pytest.raises(CatalogUnavailableError, match="events cannot be written"):
            await store.write([event("1")])

    async def test_what_a_disk_took_before_it_was_full_is_kept_and_known_to_all(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "events.jsonl"
        store, other = FileEventStore(path), FileEventStore(path)
        events = [event(str(number), at=number) for number in range(10)]
        monkeypatch.setattr("annserve.catalog.event_log.os.write", _half_a_write())
        with pytest.raises(CatalogUnavailableError, match="No space left"):
            await store.write(events)
        monkeypatch.undo()
        seen = len(await other.of_user("u", 20))

        written = await other.write(events)

        assert 0 < seen < 10
        assert (written.accepted_count, written.duplicate_count) == (10 - seen, seen)
        assert await everything(store) == events
        await store.close()
        await other.close()


def _half_a_write() -> Callable[[int, Any], int]:
    real = os.write
    calls = iter([True, False])

    def write(fd: int, data: Any) -> int:
        if next(calls):
            return real(fd, bytes(data)[: len(data) // 2])
        raise OSError(28, "No space left on device")

    return write


class TestMongoDB:
    """What only a database is asked."""

    async def test_it_drops_old_events_itself_and_learns_of_another_time(
        self, mongod: MongoServer, database_name: str
    ) -> None:
        catalog = MongoCatalog(mongod.uri, config_of(database_name))
        store = catalog.event_store()
        await store.maintain(10)
        await store.maintain(20)
        await catalog.close()

        with MongoClient[dict[str, Any]](mongod.uri) as client:
            indexes = client[database_name]["annserve_events"].index_information()

        assert indexes["time_1"]["expireAfterSeconds"] == 20 * 86_400
        assert {"user_id_1_type_1_time_-1", "impression_id_1"} <= indexes.keys()

    async def test_a_users_events_are_found_by_an_index(self, mongod: MongoServer, database_name: str) -> None:
        catalog = MongoCatalog(mongod.uri, config_of(database_name))
        store = catalog.event_store()
        await store.maintain(10)
        kinds = list(EventType)
        await store.write(
            [event(str(number), f"u{number % 50}", at=number, type=kinds[number % 5]) for number in range(1_000)]
        )
        with MongoClient[dict[str, Any]](mongod.uri) as client:
            client[database_name].command("profile", 2)
            await store.of_user("u7", 3, OUTCOMES)
            client[database_name].command("profile", 0)
            (profile,) = client[database_name]["system.profile"].find({"op": "query", "ns": {"$regex": "annserve_"}})
        await catalog.close()

        assert (profile["docsExamined"], profile.get("hasSortStage", False)) == (3, False)

    async def test_a_server_that_is_away_is_unavailable(self, database_name: str) -> None:
        with Mongod() as server:
            catalog = MongoCatalog(server.uri, config_of(database_name))
            store = catalog.event_store()
            await store.write([event("1")])
            server.kill()

            with pytest.raises(CatalogUnavailableError):
                await store.write([event("2")])
        await catalog.close()


@pytest.mark.parametrize("mode", [0o600, 0o640])
async def test_a_log_that_is_rewritten_is_as_private_as_it_was(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "events.jsonl"
    store = FileEventStore(path)
    await store.write([event("1", "u"), event("2", "v")])
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(mode)

    await store.erase_user("u")

    assert path.stat().st_mode & 0o777 == mode
    await store.close()


async def test_a_log_without_anything_to_erase_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    store = FileEventStore(path)
    await store.write([event("1", "u")])
    before = path.stat().st_ino

    assert await store.erase_user("nobody") == 0

    assert path.stat().st_ino == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [".events.jsonl.lock", "events.jsonl"]
    await store.close()


async def test_who_reads_does_not_wait_for_a_writer_that_waits_for_others(tmp_path: Path) -> None:
    store = FileEventStore(tmp_path / "events.jsonl")
    await store.write([event("1", "u")])
    with locked(tmp_path / ".events.jsonl.lock"):  # As another process has it that rewrites the log.
        writing = asyncio.create_task(store.write([event("2", "u")]))
        async with asyncio.timeout(SECONDS):
            while not await asyncio.to_thread(_is_waited_for, tmp_path / ".events.jsonl.lock"):
                await asyncio.sleep(0)
            assert [one.event_id for one in await store.of_user("u", 5)] == ["1"]
    await writing
    await store.close()


def _is_waited_for(lock: Path) -> bool:
    """Return whether somebody waits for the lock of ``lock``, as the kernel tells it."""
    inode = lock.stat().st_ino
    return any("->" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())
