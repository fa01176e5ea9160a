"""What only the file store has: files replaced from outside, several writers, refusals that change nothing."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from catalog_stores import ids_passing

from annserve.catalog.file_histories import ENTRIES_MAX, FileHistories
from annserve.catalog.file_store import FileCatalog
from annserve.domain.catalog import ChangesLostError, HistoryEntry, Schema
from annserve.domain.errors import CatalogUnavailableError, InputError
from annserve.domain.filter import Field, FieldType

PRICE = Field(name="price", type=FieldType.NUMBER, path="price")
SCHEMA = Schema([PRICE])


def catalog_at(path: Path) -> FileCatalog:
    return FileCatalog(path, SCHEMA, create=True)


@pytest.mark.parametrize("bad", [("", {}), ("b", {"price": {1, 2}})])
async def test_refused_item_leaves_the_file_as_it_was(tmp_path: Path, bad: tuple[str, dict[str, object]]) -> None:
    path = tmp_path / "items.jsonl"
    catalog = catalog_at(path)
    await catalog.upsert([("a", {"price": 1})])
    before = path.read_bytes()

    with pytest.raises(InputError):
        await catalog.upsert([("c", {"price": 3}), bad])

    assert path.read_bytes() == before
    assert await ids_passing(catalog_at(path), None) == {"a"}
    assert {one.name for one in tmp_path.iterdir()} <= {"items.jsonl", ".items.jsonl.lock"}


async def test_writers_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    catalogs = [catalog_at(path) for _ in range(4)]

    def write(number: int) -> None:
        for step in range(5):
            asyncio.run(catalogs[number].upsert([(f"{number}-{step}", {})]))

    await asyncio.gather(*(asyncio.to_thread(write, number) for number in range(4)))

    assert len(await ids_passing(catalog_at(path), None)) == 20


async def test_what_was_written_is_on_the_disk_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the folder's own sync a power cut may bring back the file of before, which the caller believes gone."""
    path = tmp_path / "items.jsonl"
    synced: list[tuple[bool, bool]] = []

    def noted(descriptor: int, sync: Callable[[int], None] = os.fsync) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    await catalog_at(path).upsert([("a", {})])

    assert synced == [(False, False), (True, True)]


def test_an_erased_user_is_off_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = FileHistories(tmp_path / "histories.jsonl")
    histories.add("u", [entry("a", 1)])
    folders: list[bool] = []

    def noted(descriptor: int, sync: Callable[[int], None] = os.fsync) -> None:
        folders.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    histories.erase("u")

    assert folders == [False, True]


async def test_file_replaced_from_outside_is_read_anew_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    catalog = catalog_at(path)
    await catalog.upsert([("a", {"price": 1})])
    changes = catalog.changes()
    async with asyncio.timeout(10):
        assert await anext(changes) == ()
        path.write_text("half of")
        following = asyncio.ensure_future(anext(changes))
        await asyncio.wait([following], timeout=0.3)
        assert not following.done(), "neither up to date nor lost"
        assert await ids_passing(catalog, None) == {"a"}
        path.write_text(json.dumps({"item_id": "b"}) + "\n")
        with pytest.raises(ChangesLostError):
            await following

    assert await ids_passing(catalog, None) == {"b"}


async def test_of_an_id_that_is_there_twice_the_last_document_counts(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id": "a", "price": 1}\n{"item_id": "a", "price": 2}\n')
    catalog = catalog_at(path)

    assert await catalog.select(["a"], fields=[PRICE]) == {"a": {"price": (2.0,)}}
    assert [chunk async for chunk in catalog.matching(None)] == [["a"]]


async def test_file_of_another_format_is_read_and_not_written(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("item_id,price\na,1\n")
    catalog = catalog_at(path)

    assert await catalog.select(["a"], fields=[PRICE]) == {"a": {"price": (1.0,)}}
    with pytest.raises(InputError, match="read only"):
        await catalog.delete(["a"])


def entry(item_id: str, time_ms: int) -> HistoryEntry:
    return HistoryEntry(item_id=item_id, time_ms=time_ms)


def newest(histories: FileHistories, count: int) -> list[HistoryEntry]:
    histories.catch_up()
    return list(histories.newest("u", count))


def test_log_with_a_torn_line_loses_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "histories.jsonl"
    FileHistories(path).add("u", [entry("a", 1), entry("b", 2)])
    path.write_bytes(path.read_bytes()[:-5])
    histories = FileHistories(path)
    assert newest(histories, 9) == [entry("a", 1)]

    histories.add("u", [entry("c", 3)])

    assert newest(histories, 9) == newest(FileHistories(path), 9) == [entry("a", 1), entry("c", 3)]


def test_log_that_another_process_writes_is_followed(tmp_path: Path) -> None:
    ours, theirs = (FileHistories(tmp_path / "histories.jsonl") for _ in range(2))
    theirs.add("u", [entry("a", 1)])
    assert newest(ours, 9) == [entry("a", 1)]
    theirs.erase("u")
    assert newest(ours, 9) == []
    theirs.add("u", [entry("b", 2)])
    assert newest(ours, 9) == [entry("b", 2)]


def test_newest_entries_by_time_are_kept_however_late_older_ones_arrive(tmp_path: Path) -> None:
    histories = FileHistories(tmp_path / "histories.jsonl")
    histories.add("u", [entry("new", 10**9)])
    histories.add("u", [entry(f"old-{time_ms}", time_ms) for time_ms in range(ENTRIES_MAX + 5)])

    kept = newest(histories, 2 * ENTRIES_MAX)

    assert len(kept) == ENTRIES_MAX
    assert kept[-1] == entry("new", 10**9)


def test_a_log_replaced_by_one_of_the_same_size_is_read_anew_whatever_inode_it_was_given(tmp_path: Path) -> None:
    """File systems give the number of a removed file to the next: number and size may both come back."""
    path = tmp_path / "histories.jsonl"
    ours, theirs = FileHistories(path), FileHistories(path)
    for number in range(20):
        theirs.add("u", [entry(f"item-{number:04}", 1)])
        assert newest(ours, 9) == [entry(f"item-{number:04}", 1)]
        theirs.erase("u")
        theirs.erase("nobody")


async def test_a_log_that_is_no_log_is_no_fault_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    catalog = FileCatalog(tmp_path / "items.jsonl", SCHEMA, tmp_path / "folder", create=True)
    with pytest.raises(CatalogUnavailableError):
        await catalog.history("u", 9)

    deep = tmp_path / "deep.jsonl"
    deep.write_text("[" * 100_000 + "\n")
    FileHistories(deep).add("u", [entry("a", 1)])
    assert newest(FileHistories(deep), 9) == [entry("a", 1)]


async def test_a_long_log_is_read_beside_the_event_loop(tmp_path: Path) -> None:
    path = tmp_path / "histories.jsonl"
    FileHistories(path).add("u", [entry(f"item-{number}", number) for number in range(30_000)])
    catalog = FileCatalog(tmp_path / "items.jsonl", SCHEMA, path, create=True)
    turns = 0
    reading = asyncio.create_task(catalog.history("u", 2))
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1

    assert [one.item_id for one in await reading] == ["item-29998", "item-29999"]
    assert turns > 3
    await catalog.close()
