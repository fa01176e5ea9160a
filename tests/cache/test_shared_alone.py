"""What a worker's cache does by itself: expiry, joining, failures, room."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator

import pytest

from annserve.cache import shared
from annserve.cache.bitmaps import LeafBitmap
from annserve.cache.entries import Entry, decode_entry, encode_entry
from annserve.cache.shared import CacheSource, Made, SharedCache


@pytest.fixture
def cache() -> Iterator[SharedCache]:
    opened = SharedCache(None, worker_bytes_max=10_000)
    yield opened
    opened.close()


class Maker:
    """Makes values once it may, and counts them."""

    def __init__(self, *, kept: bool = True) -> None:
        self.count = 0
        self.kept = kept
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> Made:
        self.count += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Made(str(self.count).encode(), self.kept)


async def test_lives_differ_by_up_to_a_tenth_so_that_not_all_end_at_once(cache: SharedCache) -> None:
    now = time.monotonic()
    for number in range(20):
        cache.put(str(number).encode(), b"v", now - 95.0, 100.0)
    kept = sum(cache.get(str(number).encode()) is not None for number in range(20))
    assert 0 < kept < 20
    for number in range(20):
        cache.put(str(number).encode(), b"v", now - 111.0, 100.0)
    assert not any(cache.get(str(number).encode()) for number in range(20))


async def test_an_empty_value_is_a_value_for_what_is_known_not_to_be(cache: SharedCache) -> None:
    cache.put(b"k", b"", time.monotonic(), 60.0)
    found = cache.get(b"k")
    assert found is not None
    assert found.value == b""


async def test_those_who_ask_meanwhile_join_and_one_who_leaves_takes_nobody_along(cache: SharedCache) -> None:
    make = Maker()
    asking = [asyncio.create_task(cache.get_or_compute(b"k", make, 60.0)) for _ in range(5)]
    await asyncio.sleep(0)
    asking[3].cancel()
    make.gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[3], asyncio.CancelledError)
    assert {one.value for one in found if not isinstance(one, BaseException)} == {b"1"}
    assert make.count == 1


async def test_when_the_maker_leaves_those_who_wait_make_it_themselves(cache: SharedCache) -> None:
    make = Maker()
    leader = asyncio.create_task(cache.get_or_compute(b"k", make, 60.0))
    await asyncio.sleep(0)
    follower = asyncio.create_task(cache.get_or_compute(b"k", make, 60.0))
    await asyncio.sleep(0)
    leader.cancel()
    make.gate.set()
    assert (await follower).value == b"2"
    assert cache.get(b"k") is not None


async def test_an_error_is_for_its_caller_and_is_not_kept(cache: SharedCache) -> None:
    make = Maker()
    make.error = RuntimeError("no")
    make.gate.set()
    with pytest.raises(RuntimeError):
        await cache.get_or_compute(b"k", make, 60.0)
    make.error = None
    assert (await cache.get_or_compute(b"k", make, 60.0)).source is CacheSource.NONE


async def test_nobody_waits_longer_than_she_can(cache: SharedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "WAIT_SECONDS", 10.0)
    make, quick = Maker(), Maker()
    quick.gate.set()
    leader = asyncio.create_task(cache.get_or_compute(b"k", make, 60.0))
    await asyncio.sleep(0)
    began = time.monotonic()
    await cache.get_or_compute(b"k", quick, 60.0, wait_seconds=0.02)
    assert time.monotonic() - began < 2.0
    leader.cancel()


async def test_what_must_not_be_kept_is_given_to_those_who_wait_and_to_nobody_after(cache: SharedCache) -> None:
    make = Maker(kept=False)
    asking = [asyncio.create_task(cache.get_or_compute(b"k", make, 60.0, 60.0)) for _ in range(3)]
    await asyncio.sleep(0)
    make.gate.set()
    assert {found.value for found in await asyncio.gather(*asking)} == {b"1"}
    assert cache.get(b"k") is None
    assert (await cache.get_or_compute(b"k", make, 60.0)).value == b"2"


async def test_a_value_that_no_longer_holds_is_none(cache: SharedCache) -> None:
    make = Maker()
    make.gate.set()
    await cache.get_or_compute(b"k", make, 60.0)
    assert (await cache.get_or_compute(b"k", make, 60.0, holds=lambda value: value == b"1")).value == b"1"
    assert (await cache.get_or_compute(b"k", make, 60.0, holds=lambda value: value == b"2")).value == b"2"


async def test_a_stale_value_that_cannot_be_made_anew_is_given_until_its_time_is_up(cache: SharedCache) -> None:
    make = Maker()
    make.gate.set()
    make.error = RuntimeError("no")
    cache.put(b"k", b"old", time.monotonic() - 10.0, 5.0, 60.0)
    for _ in range(3):
        found = await cache.get_or_compute(b"k", make, 5.0, 60.0)
        assert (found.value, found.stale) == (b"old", True)
        await asyncio.sleep(0.01)
    assert make.count == 3


async def test_room_is_bounded_keys_included(cache: SharedCache) -> None:
    for number in range(100):
        cache.put(b"%d" % number * 300, b"v" * 300, time.monotonic(), 60.0)
    cache.put(b"too large", b"v" * 20_000, time.monotonic(), 60.0)
    assert cache.size_bytes <= 10_000
    assert cache.get(b"too large") is None
    assert cache.get(b"99" * 300) is not None
    assert cache.get(b"1" * 300) is None


def test_an_entry_is_only_found_by_the_whole_of_its_key() -> None:
    entry = Entry(b"key", b"value", 3, 1.0, 2.0, 4.0)
    data = memoryview(encode_entry(entry))
    assert decode_entry(b"key", data) == entry
    assert decode_entry(b"kex", data) is None
    assert decode_entry(b"ke", data) is None
    assert decode_entry(b"keyvalue", data) is None


def test_no_two_processes_call_different_bitmaps_by_one_version() -> None:
    """Workers are forked, and share answers by the versions that these rest on."""

    def versions() -> list[int]:
        return [LeafBitmap(leaf=None, bitmap=None, read_at=0.0).version for _ in range(3)]  # type: ignore[arg-type]

    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, repr(versions()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    childs = os.read(read_end, 1_000).decode()
    os.close(read_end)
    os.close(write_end)
    ours = versions()
    assert ours == sorted(ours)
    assert not any(str(version) in childs for version in ours)
