"""Erasures from their store, and from who erases, to workers."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from annserve.cache.bitmaps import BitmapCache
from annserve.catalog.file_erasures import FileErasureStore
from annserve.domain.erasure import ErasedUsers, Erasure, digest_of
from annserve.domain.errors import CatalogUnavailableError
from annserve.keeper import erasures
from annserve.keeper.erasures import TOPIC, ErasureFollower, ErasureNews
from annserve.keeper.hub import KeeperHub
from annserve.keeper.link_client import KeeperLink

SECONDS = 10.0
EARLY, LATE = (
    Erasure(digest=digest_of(name), erased_ms=erased_ms) for name, erased_ms in (("early", 1_000), ("late", 2_000))
)


class HeldErasures(FileErasureStore):
    """Says what was there when it was asked, once it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def since(self, erased_ms: int) -> Sequence[Erasure]:
        found = await super().since(erased_ms)
        self.is_asked.set()
        await self.go_on.wait()
        return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose name leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


async def test_a_worker_that_comes_while_the_erasures_are_first_read_misses_none(folder: Path) -> None:
    store, erased = HeldErasures(folder / "erased.jsonl"), ErasedUsers()
    await store.add(EARLY)
    hub = KeeperHub(None, lambda _: {})  # type: ignore[arg-type,return-value]  # No bitmaps are asked for.
    follower = ErasureFollower(store, hub)
    follower.start()
    await hub.start(folder / "hub.sock")
    await store.is_asked.wait()
    await store.add(LATE)
    follower.tell([LATE])
    link, news = KeeperLink(folder / "hub.sock", "s1", BitmapCache()), ErasureNews(erased, lambda: None)
    link.subscribe(TOPIC, news.hear)
    link.start()
    try:
        async with asyncio.timeout(SECONDS):
            while not (hub.snapshot_ids and hub._publications["s1"].subscribers):
                await asyncio.sleep(0.001)
        store.go_on.set()

        await news.wait()

        assert (erased.erased_ms("early"), erased.erased_ms("late")) == (1_000, 2_000)
    finally:
        await link.stop()
        await follower.stop()
        await hub.stop()


class AwayErasures(FileErasureStore):
    """Cannot be asked at first."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.count = 0

    async def since(self, erased_ms: int) -> Sequence[Erasure]:
        self.count += 1
        if self.count < 5:
            raise CatalogUnavailableError("no server of it is reachable")
        return await super().since(erased_ms)


async def test_an_outage_is_told_of_once_and_so_is_its_end(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "LOOK_SECONDS", 0.001)
    store = AwayErasures(folder / "erased.jsonl")
    follower = ErasureFollower(store, KeeperHub(None, lambda _: {}))  # type: ignore[arg-type,return-value]
    with caplog.at_level(logging.INFO):
        follower.start()
        async with asyncio.timeout(SECONDS):
            while store.count < 8:
                await asyncio.sleep(0.001)
        await follower.stop()

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
