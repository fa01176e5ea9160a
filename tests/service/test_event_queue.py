"""Whatever calls come, whatever fails: what is acknowledged is kept once, and every event is counted once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mongod import Mongod

from annserve.catalog.config import CatalogConfig
from annserve.catalog.file_events import FileEventStore
from annserve.catalog.mongo_store import MongoCatalog
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import AnnserveError, CatalogUnavailableError, EventsUnavailableError
from annserve.domain.events import Event, EventStore, EventType, Written
from annserve.service import event_queue
from annserve.service.event_queue import EventQueue

SIZE_BYTES = 100
HEALED_SECONDS = 20.0


def event(number: int) -> Event:
    return Event(event_id=str(number), type=EventType.CLICK, user_id=f"u{number % 3}", item_ids=("a",), time_ms=number)


class FlakyStore(FileEventStore):
    """Fails as told: before anything is written, after all of it is, or not at all."""

    def __init__(self, path: Path, moods: Sequence[str]) -> None:
        super().__init__(path)
        self._moods = iter(moods)

    async def write(self, events: Sequence[Event], deadline: Deadline = NO_DEADLINE) -> Written:
        mood = next(self._moods, "well")
        if mood == "before":
            raise CatalogUnavailableError("it is away")
        written = await super().write(events, deadline)
        if mood == "after":
            raise CatalogUnavailableError("the connection broke")
        return written


async def ids_in(store: EventStore) -> list[str]:
    return [one.event_id async for chunk in store.read(0, 2**50) for one in chunk]


CALLS = st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=4), max_size=12)
MOODS = st.lists(st.sampled_from(["well", "before", "after"]), max_size=6)


@given(calls=CALLS, moods=MOODS, batch_calls=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_what_is_acknowledged_is_kept_once_and_counted_once(
    calls: list[list[int]], moods: list[str], batch_calls: int
) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(event_queue, "BATCH_BYTES", batch_calls * SIZE_BYTES)
            patch.setattr(event_queue, "GATHER_SECONDS", 0.0)
            store = FlakyStore(Path(folder) / "events.jsonl", moods)
            queue = EventQueue(store)
            outcomes: list[Any] = await asyncio.gather(
                *(queue.write([event(number) for number in numbers], SIZE_BYTES) for numbers in calls),
                return_exceptions=True,
            )
            await queue.close()
            kept = await ids_in(store)
            await store.close()
        acknowledged = [
            (numbers, outcome) for numbers, outcome in zip(calls, outcomes, strict=True) if isinstance(outcome, Written)
        ]
        assert all(isinstance(outcome, Written | EventsUnavailableError) for outcome in outcomes)
        assert len(kept) == len(set(kept))
        assert {str(number) for numbers, _ in acknowledged for number in numbers} <= set(kept)
        assert all(one.accepted_count + one.duplicate_count == len(numbers) for numbers, one in acknowledged)
        if len(acknowledged) == len(calls) and "after" not in moods:
            assert sum(one.accepted_count for _, one in acknowledged) == len(kept)
        counts = queue.counts
        assert counts.accepted + counts.duplicate + counts.refused == sum(map(len, calls))

    asyncio.run(run())


class HeldStore(FileEventStore):
    """Writes when it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def write(self, events: Sequence[Event], deadline: Deadline = NO_DEADLINE) -> Written:
        self.is_asked.set()
        await self.go_on.wait()
        return await super().write(events, deadline)


async def test_an_event_that_waited_while_its_user_was_erased_is_not_written(tmp_path: Path) -> None:
    store, erased = HeldStore(tmp_path / "events.jsonl"), set[str]()
    queue = EventQueue(store, lambda event: event.user_id in erased)
    first = asyncio.create_task(queue.write([event(0)], SIZE_BYTES))
    await store.is_asked.wait()
    second = asyncio.create_task(queue.write([event(1), event(2), event(4)], SIZE_BYTES))
    await asyncio.sleep(0)  # It waits now, behind the first.
    erased.add("u1")
    store.go_on.set()

    assert ((await first).accepted_count, await second) == (1, Written(accepted_count=1, duplicate_count=2))
    assert await ids_in(store) == ["0", "2"]
    assert (queue.counts.accepted, queue.counts.erased, queue.counts.duplicate) == (2, 2, 0)
    await queue.close()
    await store.close()


async def test_a_database_that_is_killed_loses_nothing_and_is_used_again_when_it_is_back() -> None:
    acknowledged: list[int] = []
    refused: list[str] = []
    with Mongod() as server:
        catalog = MongoCatalog(server.uri, CatalogConfig())
        store = catalog.event_store()
        queue = EventQueue(store)
        stopping = asyncio.Event()

        async def write(writer: int) -> None:
            number = writer
            while not stopping.is_set():
                try:
                    await queue.write([event(number)], SIZE_BYTES, Deadline.after(2.0))
                    acknowledged.append(number)
                except AnnserveError as error:
                    refused.append(error.reason)
                    await asyncio.sleep(0.02)
                number += 8

        writers = [asyncio.create_task(write(writer)) for writer in range(8)]
        await until(lambda: len(acknowledged) >= 300)
        await asyncio.to_thread(server.kill)
        await until(lambda: len(refused) >= 20)
        before = len(acknowledged)
        await asyncio.to_thread(server.restart)
        await until(lambda: len(acknowledged) >= before + 300)
        stopping.set()
        await asyncio.gather(*writers)
        await queue.close()
        kept = await ids_in(store)
        await catalog.close()

    assert set(map(str, acknowledged)) <= set(kept)
    assert len(kept) == len(set(kept))
    assert set(refused) <= {"EVENTS_UNAVAILABLE", "DEADLINE_EXCEEDED"}


async def until(holds: Any) -> None:
    async with asyncio.timeout(HEALED_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)
