from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from catalog_twin import CHEAP, DEAR, LEAVES, RED, CatalogTwin
from linked import QUICK, linked

from annserve.domain.errors import CatalogUnavailableError, FieldNotIndexedError

DOCUMENTS = {f"i{number}": {"price": number, "colour": "red" if number % 2 else "blue"} for number in range(8)}


async def test_a_worker_gets_leaves_and_follows_every_change() -> None:
    async with linked(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        (worker,) = under_test.workers
        built = await asyncio.gather(*map(worker.link.build, LEAVES))
        assert [worker.bitmaps.peek(leaf) for leaf in LEAVES] == built

        under_test.twin.write("i1", {"price": 9, "colour": "blue"})
        under_test.twin.write("i2", None)
        under_test.twin.write("nowhere", {"price": 1})
        await under_test.until(lambda: len(worker.changed) == 3)
        await under_test.settled()

        under_test.assert_true()
        assert worker.changed == ["i1", "i2", "nowhere"]
        assert len(under_test.twin.reads) == 1 + len(LEAVES)


async def test_what_one_worker_had_read_is_read_for_no_other() -> None:
    async with linked(CatalogTwin(DOCUMENTS), workers=2) as under_test:
        await under_test.settled()
        first, second = under_test.workers
        original = await first.link.build(CHEAP)
        copy = await second.link.build(CHEAP, since=0.0)

        assert copy is not original
        assert (copy.bitmap, copy.version, copy.read_at) == (original.bitmap, original.version, original.read_at)
        assert under_test.twin.reads.count(CHEAP) == 1


async def test_what_is_known_to_be_older_than_asked_for_is_read_again() -> None:
    async with linked(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        (worker,) = under_test.workers
        before = await worker.link.build(CHEAP)
        after = await worker.link.build(CHEAP)

        assert after.read_at > before.read_at
        assert worker.bitmaps.peek(CHEAP) is after
        assert under_test.twin.reads.count(CHEAP) == 2


async def test_a_copy_that_gave_way_in_the_worker_is_sent_again() -> None:
    async with linked(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        (worker,) = under_test.workers
        before = await worker.link.build(CHEAP)
        worker.bitmaps.drop(CHEAP)
        after = await worker.link.build(CHEAP, since=0.0)

        assert worker.bitmaps.peek(CHEAP) is after
        assert after.bitmap == before.bitmap
        assert under_test.twin.reads.count(CHEAP) == 1
        under_test.twin.write("i1", None)
        await under_test.settled()
        await under_test.until(lambda: 1 not in after.bitmap)


async def test_listeners_hear_of_changes_before_any_bit_flips() -> None:
    passed: list[bool] = []
    async with linked(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        (worker,) = under_test.workers
        cheap = await worker.link.build(CHEAP)
        worker.link._listeners = [lambda _: passed.append(1 in cheap.bitmap)]
        under_test.twin.write("i1", None)
        await under_test.until(lambda: 1 not in cheap.bitmap)

        assert passed == [True]


async def test_errors_of_a_build_come_over_as_they_are() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin) as under_test:
        await under_test.settled()
        for problem in (FieldNotIndexedError("price"), CatalogUnavailableError("it is down")):
            twin.problem = problem
            with pytest.raises(type(problem), match=problem.message):
                await under_test.workers[0].link.build(CHEAP)


async def test_without_a_keeper_what_is_unknown_is_unavailable_at_once_and_what_is_known_is_stale() -> None:
    async with linked(CatalogTwin(DOCUMENTS)) as under_test:
        await under_test.settled()
        (worker,) = under_test.workers
        known = await worker.link.build(CHEAP)
        under_test.twin.gate.clear()
        waiting = worker.link.build(DEAR)
        await under_test.until(lambda: under_test.twin.reading == 1)
        await under_test.hub.stop()
        await under_test.until(lambda: not worker.link.connected)

        assert worker.bitmaps.stale
        assert worker.bitmaps.get(CHEAP) is known
        for build in (waiting, worker.link.build(RED)):
            with pytest.raises(CatalogUnavailableError, match="keeper"):
                await asyncio.wait_for(build, 1)


async def test_a_leaf_read_while_changes_flood_reaches_who_asked_and_no_cache() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin, settings=replace(QUICK, flood_changes=5)) as under_test:
        await under_test.settled()
        (worker,) = under_test.workers
        for number in range(20):
            twin.write(f"i{number % 8}", {"price": 9})
        await under_test.until(lambda: under_test.keeper().counters.floods == 1)
        twin.streams[-1].held = True

        built = await worker.link.build(RED)

        assert set(built.bitmap) == twin.rows_passing(RED, under_test.rows)
        assert worker.bitmaps.peek(RED) is None
        twin.streams[-1].held = False
        await under_test.settled()
        under_test.assert_true()
