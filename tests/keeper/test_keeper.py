from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest
from catalog_twin import CHEAP, DEAR, LEAVES, PRICE, RED, CatalogTwin
from kept import kept

from annserve.domain.catalog import FreshnessMode
from annserve.domain.errors import CatalogUnavailableError, FieldNotIndexedError
from annserve.domain.filter import Equals
from annserve.keeper.settings import KeeperSettings

DOCUMENTS = {f"i{number}": {"price": number, "colour": "red" if number % 2 else "blue"} for number in range(8)}


async def test_a_change_flips_the_bit_of_every_leaf_and_of_present() -> None:
    async with kept(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        await asyncio.gather(*(under_test.keeper.build(leaf) for leaf in LEAVES))

        under_test.twin.write("i1", {"price": 9, "colour": "blue"})
        under_test.twin.write("i2", None)
        under_test.twin.write("nowhere", {"price": 1})
        await under_test.settled()

        under_test.assert_true()
        counters = under_test.keeper.counters
        # i1 turns over in all three leaves, i2 passed one of them and is gone from `present`.
        assert (counters.flips, counters.changes, counters.unknown_items) == (5, 3, 1)
        assert len(under_test.twin.reads) == 1 + len(LEAVES)


async def test_what_changes_while_a_leaf_is_read_is_in_its_bitmap() -> None:
    twin = CatalogTwin(DOCUMENTS, ids_a_chunk=1)
    async with kept(twin) as under_test:
        await under_test.settled()
        build = under_test.keeper.build(CHEAP)
        await under_test.until(lambda: twin.reading == 1)
        for _ in range(6):
            await asyncio.sleep(0)
        assert not build.done()
        twin.write("i0", {"price": 7})  # It has been read and passed, i7 will be read.
        twin.write("i7", {"price": 1})

        await build
        await under_test.settled()

        under_test.assert_true()
        assert set(twin.reads) == {None, CHEAP}


async def test_equal_builds_are_one_and_go_on_when_a_waiter_leaves() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with kept(twin) as under_test:
        await under_test.settled()
        twin.gate.clear()
        leaving, staying = under_test.keeper.build(CHEAP), under_test.keeper.build(CHEAP)
        leaving.cancel()
        twin.gate.set()

        built = await staying

        assert set(built.bitmap) == twin.rows_passing(CHEAP, under_test.rows)
        assert twin.reads.count(CHEAP) == 1
        assert under_test.bitmaps.peek(CHEAP) is built


async def test_at_most_four_leaves_are_read_at_once_and_background_work_leaves_room() -> None:
    twin = CatalogTwin(DOCUMENTS)
    leaves = [Equals(PRICE, float(price)) for price in range(9)]
    async with kept(twin) as under_test:
        await under_test.settled()
        await asyncio.gather(*map(under_test.keeper.build, leaves))
        for leaf in leaves:
            under_test.bitmaps.get(leaf)
        assert twin.most_at_once == 4

        twin.gate.clear()
        twin.most_at_once = 0
        twin.lose_changes()
        await under_test.until(lambda: len(twin.streams) == 2 and twin.reading == 2)
        wanted = under_test.keeper.build(RED)
        await under_test.until(lambda: twin.reading == 3)
        twin.gate.set()
        await wanted
        await under_test.settled()

        assert set(under_test.bitmaps.leaves()) == {*leaves, RED}
        under_test.assert_true()


async def test_reading_a_leaf_again_is_no_use_of_it() -> None:
    async with kept(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        await under_test.keeper.build(CHEAP)
        before = under_test.bitmaps.get(CHEAP)

        after = await under_test.keeper.build(CHEAP)

        assert before is not None
        assert after.used_at == before.used_at < after.read_at


async def test_an_error_reaches_every_waiter_and_is_not_remembered() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with kept(twin) as under_test:
        await under_test.settled()
        twin.problem = FieldNotIndexedError("price")
        builds = [under_test.keeper.build(CHEAP) for _ in range(2)]
        for build in builds:
            with pytest.raises(FieldNotIndexedError):
                await build
        twin.problem = None

        assert len((await under_test.keeper.build(CHEAP)).bitmap) == 6
        assert under_test.keeper.counters.build_failures == 1


async def test_stopping_tells_waiters_that_the_catalogue_is_unavailable() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with kept(twin) as under_test:
        await under_test.settled()
        twin.gate.clear()
        waiting = under_test.keeper.build(CHEAP)
        await under_test.until(lambda: twin.reading == 1)
    for build in (waiting, under_test.keeper.build(DEAR)):
        with pytest.raises(CatalogUnavailableError):
            await build
    assert twin.reading == 0


async def test_drift_between_catalogue_and_snapshot_is_counted() -> None:
    twin = CatalogTwin({"i0": {}, "i1": {}, "x": {}, "y": {}, "z": {}})
    async with kept(twin) as under_test:
        await under_test.settled()
        counters = under_test.keeper.counters
        assert (counters.items_without_row, counters.rows_without_item) == (3, 6)

        twin.write("i5", {})
        await under_test.settled()

        assert counters.rows_without_item == 5


async def test_listeners_hear_of_changes_before_any_bit_flips() -> None:
    heard: list[tuple[Sequence[str], bool]] = []
    twin = CatalogTwin(DOCUMENTS)

    def listen(changes: Sequence[str]) -> None:
        cheap = under_test.bitmaps.peek(CHEAP)
        heard.append((changes, cheap is not None and 1 in cheap.bitmap))

    async with kept(twin, listeners=[listen]) as under_test:
        await under_test.settled()
        await under_test.keeper.build(CHEAP)
        twin.write("i1", None)
        await under_test.settled()

        assert heard == [(["i1"], True)]
        under_test.assert_true()


async def test_lost_changes_rebuild_what_was_used_lately_and_tell_who_else_must_forget() -> None:
    twin = CatalogTwin(DOCUMENTS)
    forgotten: list[tuple[float, bool]] = []

    def forget() -> None:
        forgotten.append((under_test.bitmaps.synced_at, under_test.bitmaps.stale))

    async with kept(twin, lost_listeners=[forget]) as under_test:
        await under_test.settled()
        await asyncio.gather(under_test.keeper.build(CHEAP), under_test.keeper.build(RED))
        under_test.bitmaps.get(CHEAP)
        forgotten.clear()
        twin.lose_changes()
        twin.documents["i0"] = {"price": 9}  # Nobody will tell of this.

        await under_test.until(lambda: len(twin.streams) == 2)
        await under_test.settled()

        assert under_test.bitmaps.leaves() == (CHEAP,)
        under_test.assert_true()
        assert under_test.keeper.counters.resyncs == 1
        assert forgotten
        assert set(forgotten) == {(-math.inf, True)}


async def test_what_was_read_before_the_changes_began_is_read_again() -> None:
    twin = CatalogTwin(DOCUMENTS)
    bare = kept(twin)
    async with bare as under_test:
        twin.streams.clear()
        early = under_test.keeper.build(CHEAP)
        await early
        await under_test.settled()
        reads = twin.reads.count(CHEAP)

    assert reads == 2


async def test_a_flood_drops_leaves_goes_on_with_present_and_rebuilds_afterwards() -> None:
    twin = CatalogTwin(DOCUMENTS)
    settings = KeeperSettings(retry_seconds=0.0, flood_changes=5)
    async with kept(twin, settings=settings) as under_test:
        await under_test.settled()
        await under_test.keeper.build(CHEAP)
        under_test.bitmaps.get(CHEAP)
        for number in range(20):
            twin.write(f"i{number % 8}", {"price": 9} if number % 8 else None)

        await under_test.until(lambda: under_test.keeper.counters.floods == 1)
        twin.streams[-1].held = True
        during = await under_test.keeper.build(RED)
        assert set(during.bitmap) == twin.rows_passing(RED, under_test.rows)
        assert under_test.bitmaps.leaves() == ()
        assert under_test.bitmaps.present is not None
        twin.gate.clear()
        under_test.keeper.build(DEAR)
        await under_test.until(lambda: twin.reading == 1)
        twin.streams[-1].held = False
        await under_test.until(lambda: twin.reads.count(DEAR) == 2)
        twin.gate.set()
        await under_test.settled()

        assert set(under_test.bitmaps.leaves()) == {CHEAP, DEAR}
        under_test.assert_true()
        assert under_test.keeper.counters.changes == 20
        assert twin.reads.count(None) == 1


async def test_few_changes_are_a_flood_where_many_leaves_have_to_judge_them() -> None:
    twin = CatalogTwin(DOCUMENTS)
    settings = KeeperSettings(retry_seconds=0.0, flood_evaluations=2 * len(LEAVES))
    async with kept(twin, settings=settings) as under_test:
        await under_test.settled()
        await asyncio.gather(*(under_test.keeper.build(leaf) for leaf in LEAVES))
        for number in range(2):
            under_test.twin.write(f"i{number}", {"price": 9})
        await under_test.settled()
        assert under_test.keeper.counters.floods == 0

        for number in range(3):
            under_test.twin.write(f"i{number}", {"price": 8})
        await under_test.until(lambda: under_test.keeper.counters.floods == 1)
        await under_test.settled()

        under_test.assert_true()


async def test_more_leaves_than_may_wait_are_refused_and_later_read() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with kept(twin, settings=KeeperSettings(retry_seconds=0.0, builds_waiting_max=2)) as under_test:
        await under_test.settled()
        twin.gate.clear()
        first, second, third = (under_test.keeper.build(leaf) for leaf in LEAVES)
        with pytest.raises(CatalogUnavailableError, match="too many"):
            await third
        twin.gate.set()
        await asyncio.gather(first, second)

        assert (await under_test.keeper.build(LEAVES[2])).leaf == LEAVES[2]


async def test_a_flood_is_counted_from_the_last_moment_of_rest() -> None:
    twin = CatalogTwin(DOCUMENTS)
    settings = KeeperSettings(retry_seconds=0.0, flood_changes=5)
    async with kept(twin, settings=settings) as under_test:
        await under_test.settled()
        for number in range(20):
            twin.write(f"i{number % 8}", {"price": 9})
            await under_test.settled()

        assert under_test.keeper.counters.floods == 0


async def test_bitmaps_are_stale_and_grow_old_while_the_store_is_away_and_recover() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with kept(twin) as under_test:
        await under_test.settled()
        await under_test.keeper.build(CHEAP)
        twin.available = False
        twin.write("i0", None)
        await under_test.until(lambda: under_test.bitmaps.stale)
        synced_at = under_test.bitmaps.synced_at
        for _ in range(20):
            await asyncio.sleep(0)
        assert under_test.bitmaps.synced_at == synced_at
        assert CHEAP in under_test.bitmaps.leaves()

        twin.available = True
        await under_test.settled()

        assert not under_test.bitmaps.stale
        assert under_test.bitmaps.synced_at > synced_at
        under_test.assert_true()
        assert under_test.keeper.counters.resyncs == 0


async def test_a_store_that_says_nothing_at_all_makes_bitmaps_stale() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with kept(twin, settings=KeeperSettings(silence_seconds=0.02)) as under_test:
        await under_test.settled()
        twin.streams[-1].held = True
        await under_test.until(lambda: under_test.bitmaps.stale)
        twin.streams[-1].held = False
        await under_test.until(lambda: not under_test.bitmaps.stale)


async def test_a_keeper_whose_listener_fails_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    failures = [ValueError("once")]

    def fail_once(_: Sequence[str]) -> None:
        if failures:
            raise failures.pop()

    twin = CatalogTwin(DOCUMENTS)
    async with kept(twin, listeners=[fail_once]) as under_test:
        await under_test.settled()
        twin.write("i0", None)
        await under_test.until(lambda: len(twin.streams) == 2)
        await under_test.settled()

        under_test.assert_true()
    assert "following the catalogue failed" in caplog.text


async def test_without_changes_leaves_are_read_again_when_old_and_used_and_else_dropped() -> None:
    twin = CatalogTwin(DOCUMENTS)
    twin.tells_changes = False
    settings = KeeperSettings(ttl_seconds=0.02)
    async with kept(twin, settings=settings) as under_test:
        await under_test.until(lambda: under_test.bitmaps.present is not None)
        assert under_test.keeper.mode is FreshnessMode.TTL
        await asyncio.gather(under_test.keeper.build(CHEAP), under_test.keeper.build(RED))
        under_test.bitmaps.get(CHEAP)
        twin.write("i0", None)
        twin.write("i7", {"price": 1})

        await under_test.until(lambda: twin.reads.count(CHEAP) == 2 and not twin.reading)
        await under_test.until(lambda: twin.reads.count(None) > 2 and not twin.reading)
        await under_test.until(lambda: RED not in under_test.bitmaps.leaves())

        under_test.assert_true()
        assert under_test.bitmaps.synced_at == -math.inf
        assert twin.reads.count(RED) == 1
        await under_test.until(lambda: CHEAP not in under_test.bitmaps.leaves())


async def test_without_changes_what_cannot_be_read_again_is_kept_and_called_stale() -> None:
    twin = CatalogTwin(DOCUMENTS)
    twin.tells_changes = False
    async with kept(twin, settings=KeeperSettings(ttl_seconds=0.02)) as under_test:
        await under_test.until(lambda: under_test.bitmaps.present is not None)
        await under_test.keeper.build(CHEAP)
        twin.available = False
        under_test.bitmaps.get(CHEAP)
        twin.write("i0", None)

        await under_test.until(lambda: under_test.bitmaps.stale)
        kept_bitmap = under_test.bitmaps.get(CHEAP)
        assert kept_bitmap is not None
        assert 0 in kept_bitmap.bitmap

        twin.available = True
        await under_test.until(lambda: not under_test.bitmaps.stale and not twin.reading)
        under_test.assert_true()
