"""What is known of users beside the snapshot: who was erased, what they did and were shown a moment ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from annserve.catalog.file_events import FileEventStore
from annserve.catalog.file_histories import FileHistories
from annserve.domain.catalog import HistoryEntry
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.erasure import ErasedUsers, Erasure, digest_of
from annserve.domain.errors import UnknownUserError
from annserve.domain.events import Event, EventType
from annserve.domain.query import CatalogUse, Mode, Options, Query, Source
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.fresh_state import FreshState
from annserve.engine.histories import HistoryReader
from annserve.engine.kept_shown import KeptShown
from annserve.engine.known_users import TRAINING_MS_MAX
from annserve.engine.outcomes import HistoryWithOutcomes
from annserve.engine.plain_recommender import PlainRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.user_changes import UserChanges
from annserve.engine.workbench import Workbench
from annserve.snapshot.snapshot import Snapshot

USER = "user-3"
SECONDS = 10.0
WORDS = {EventType.CLICK: "viewed", EventType.DISLIKE: "disliked"}


def asked(user_id: str = USER, **options: object) -> Query:
    return Query(mode=Mode.PERSONALIZE, user_id=user_id, options=Options(**options))  # type: ignore[arg-type]


def erase(erased: ErasedUsers, snapshot: Snapshot, before_build_ms: float) -> None:
    built_ms = round(snapshot.manifest.created_time.timestamp() * 1e3)
    erased.add([Erasure(digest=digest_of(USER), erased_ms=round(built_ms - before_build_ms))])


def test_an_erased_user_is_answered_as_a_stranger_and_others_as_before(snapshot: Snapshot) -> None:
    erased = ErasedUsers()
    engine = SnapshotRecommender(snapshot, erased=erased)
    before, other = engine.recommend(asked()), engine.recommend(asked("user-4"))
    assert before.source is Source.USER_VECTOR

    erase(erased, snapshot, -1_000)

    after = engine.recommend(asked())
    stranger = engine.recommend(asked("nobody"))
    assert (after.source, after.missing_ids) == (Source.POPULAR, (USER,))
    # Nor is her history in the snapshot made use of.
    assert (after.item_ids, after.scores) == (stranger.item_ids, stranger.scores)
    assert engine.recommend(asked("user-4")).item_ids == other.item_ids
    with pytest.raises(UnknownUserError):
        engine.recommend(asked(strict=True))


@pytest.mark.parametrize(
    ("before_build_ms", "is_known"), [(TRAINING_MS_MAX + 1_000, True), (TRAINING_MS_MAX - 1_000, False), (0, False)]
)
def test_a_snapshot_trained_after_the_erasure_knows_her_anew(
    snapshot: Snapshot, before_build_ms: float, is_known: bool
) -> None:
    erased = ErasedUsers()
    erase(erased, snapshot, before_build_ms)

    assert (SnapshotRecommender(snapshot, erased=erased).users.row(USER) is not None) is is_known


def test_no_answer_from_before_an_erasure_is_found_after_it(snapshot: Snapshot) -> None:
    erased = ErasedUsers()
    executor = ThreadPoolExecutor(1)
    engine = PlainRecommender(SnapshotRecommender(snapshot, erased=erased), Workbench(executor))
    before, other = engine.basis(asked()), engine.basis(asked("user-4"))

    erase(erased, snapshot, 0)

    assert engine.basis(asked()) != before
    assert engine.basis(asked("user-4")) == other
    executor.shutdown()


class Histories:
    """Histories in a file, as a source of them."""

    def __init__(self, path: Path) -> None:
        self.file = FileHistories(path)

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        deadline.check("reading")
        self.file.catch_up()
        return self.file.newest(user_id, newest)


@pytest.fixture
async def events(tmp_path: Path) -> AsyncIterator[FileEventStore]:
    store = FileEventStore(tmp_path / "events.jsonl")
    yield store
    await store.close()


def event(event_id: str, type_: EventType, *item_ids: str, at: int) -> Event:
    return Event(event_id=event_id, type=type_, user_id=USER, item_ids=item_ids, time_ms=at)


async def test_outcomes_are_part_of_a_history_in_the_order_of_time(tmp_path: Path, events: FileEventStore) -> None:
    histories = Histories(tmp_path / "histories.jsonl")
    histories.file.add(USER, [HistoryEntry(item_id="h", event="bought", time_ms=20)])
    written = [
        event("1", EventType.CLICK, "a", at=10),
        event("2", EventType.DISLIKE, "b", "c", at=30),
        event("3", EventType.IMPRESSION, "x", at=40),
        event("4", EventType.LIKE, "y", at=50),
    ]
    await events.write(written)
    await events.write(written)
    source = HistoryWithOutcomes(histories, events, WORDS)

    found = await source.history(USER, 10)

    assert [(entry.item_id, entry.event) for entry in found] == [
        ("a", "viewed"),
        ("h", "bought"),
        ("b", "disliked"),
        ("c", "disliked"),
    ]
    assert [entry.item_id for entry in await source.history(USER, 2)] == ["b", "c"]
    assert await source.history("nobody", 5) == []
    histories.file.close()


async def test_what_was_shown_is_kept_until_more_is_shown_by_this_worker(events: FileEventStore) -> None:
    changes = UserChanges()
    shown = KeptShown(events, changes)
    assert await shown.shown(USER, 5) == []
    await events.write([event("1", EventType.IMPRESSION, "a", at=10)])

    assert await shown.shown(USER, 5) == []
    changes.note([USER])
    assert [item.item_id for item in await shown.shown(USER, 5)] == ["a"]


def test_what_was_read_before_a_change_is_not_current() -> None:
    changes = UserChanges()
    early = time.monotonic()
    changes.note(["a"])
    late = time.monotonic()

    assert (changes.is_current("a", early), changes.is_current("b", early)) == (False, True)
    assert changes.is_current("a", late)
    changes.note_all()
    assert not changes.is_current("b", early)


async def test_a_read_that_began_before_a_change_is_not_kept(events: FileEventStore) -> None:
    changes = UserChanges()
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        async def shown(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[object]:
            found = await events.shown(user_id, newest, deadline)
            begun.set()
            await go_on.wait()
            return found

    shown = KeptShown(Slow(), changes)  # type: ignore[arg-type]
    early = asyncio.create_task(shown.shown(USER, 5))
    await begun.wait()
    await events.write([event("1", EventType.IMPRESSION, "a", at=10)])
    changes.note([USER])
    go_on.set()
    assert await early == []

    assert [item.item_id for item in await shown.shown(USER, 5)] == ["a"]


class HeldHistories:
    """Gives what there was when it was asked, once it may go on."""

    def __init__(self, entries: Sequence[HistoryEntry]) -> None:
        self.entries = list(entries)
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:  # noqa: ARG002
        found = list(self.entries)
        self.asked.set()
        await self.go_on.wait()
        return found


def entry(snapshot: Snapshot, row: int, at: int) -> HistoryEntry:
    return HistoryEntry(item_id=snapshot.items.id(row), event="viewed", time_ms=at)


async def test_a_history_read_before_it_was_deleted_is_none_of_an_erased_user(snapshot: Snapshot) -> None:
    # Workers hear of an erasure before anything is deleted, and read in between.
    histories, erased, changes = (
        HeldHistories([entry(snapshot, 3, 10), entry(snapshot, 4, 30)]),
        ErasedUsers(),
        UserChanges(),
    )
    histories.go_on.set()
    reader = HistoryReader(histories, FreshState(snapshot), CatalogSettings(), changes=changes, erased=erased)
    erased.add([Erasure(digest=digest_of(USER), erased_ms=20)])
    changes.note_all()

    found = await reader.of(USER, Deadline.after(SECONDS), CatalogUse())
    other = await reader.of("user-4", Deadline.after(SECONDS), CatalogUse())

    assert (found.seen_rows.tolist(), found.taste_rows.tolist(), found.newest_ms) == ([4], [4], 30)
    assert other.seen_rows.tolist() == [3, 4]


async def test_who_asks_after_a_change_is_not_given_what_was_being_read_before_it(snapshot: Snapshot) -> None:
    histories, changes = HeldHistories([]), UserChanges()
    reader = HistoryReader(histories, FreshState(snapshot), CatalogSettings(), changes=changes)
    early = asyncio.create_task(reader.of(USER, Deadline.after(SECONDS), CatalogUse()))
    await histories.asked.wait()
    histories.entries.append(entry(snapshot, 3, 10))
    changes.note([USER])
    late = asyncio.create_task(reader.of(USER, Deadline.after(SECONDS), CatalogUse()))
    await asyncio.sleep(0)
    histories.go_on.set()

    assert (await late).seen_rows.tolist() == [3]
    await early


async def test_what_was_shown_to_an_erased_user_is_forgotten_before_it_is_deleted(events: FileEventStore) -> None:
    erased = ErasedUsers()
    shown = KeptShown(events, UserChanges(), erased)
    await events.write([event("1", EventType.IMPRESSION, "a", at=10), event("2", EventType.IMPRESSION, "b", at=30)])
    erased.add([Erasure(digest=digest_of(USER), erased_ms=20)])

    assert [item.item_id for item in await shown.shown(USER, 5)] == ["b"]
