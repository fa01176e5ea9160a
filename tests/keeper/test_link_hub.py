"""Snapshots side by side, and what else goes over the link."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from catalog_twin import CHEAP, RED, CatalogTwin, Rows
from hypothesis import given
from hypothesis import strategies as st
from linked import QUICK, linked

from annserve.domain.errors import CatalogUnavailableError
from annserve.domain.filter import Equals, Exists, Field, FieldType, In, Leaf, Range
from annserve.keeper.hub import KeeperHub
from annserve.keeper.leaf_codec import decode_leaf, encode_leaf

DOCUMENTS = {f"i{number}": {"price": number, "colour": "red" if number % 2 else "blue"} for number in range(8)}
ROWS = {"s1": Rows.numbered(8), "s2": Rows((f"i{7 - row}", row) for row in range(8))}


async def test_each_snapshot_has_rows_of_its_own_and_is_let_go_when_nobody_serves_it() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin, settings=replace(QUICK, linger_seconds=0.05), workers=0) as under_test:
        under_test.hub._open_items = ROWS.__getitem__
        first, second = await under_test.join("s1"), await under_test.join("s2")
        for snapshot_id, worker in (("s1", first), ("s2", second)):
            await under_test.connected(worker)
            built = await worker.link.build(CHEAP)
            assert set(built.bitmap) == twin.rows_passing(CHEAP, ROWS[snapshot_id])
        twin.write("i0", None)
        copies = [first.bitmaps.peek(CHEAP), second.bitmaps.peek(CHEAP)]
        await under_test.until(
            lambda: all(copy and row not in copy.bitmap for copy, row in zip(copies, (0, 7), strict=True))
        )
        await first.link.stop()
        await under_test.until(lambda: set(under_test.hub.keepers) == {"s2"})

        assert second.link.connected


async def test_a_snapshot_whose_worker_comes_back_in_time_keeps_its_bitmaps() -> None:
    twin = CatalogTwin(DOCUMENTS)
    async with linked(twin, settings=replace(QUICK, linger_seconds=1.0)) as under_test:
        await under_test.settled()
        await under_test.workers[0].link.build(CHEAP)
        keeper = under_test.keeper()
        await under_test.workers.pop().link.stop()
        await under_test.until(lambda: bool(under_test.hub._closing))
        worker = await under_test.join()
        await under_test.settled()
        await worker.link.build(CHEAP, 0.0)
        assert not under_test.hub._closing
        await asyncio.sleep(1.1)  # Longer than it lingers: nothing to await tells that something did not happen.

        assert under_test.keeper() is keeper
        assert twin.reads.count(CHEAP) == 1


async def test_a_snapshot_that_cannot_be_opened_turns_its_worker_away_until_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with linked(CatalogTwin(DOCUMENTS), workers=0) as under_test:
        rows: dict[str, Rows] = {}
        under_test.hub._open_items = rows.__getitem__
        worker = await under_test.join("s1")
        await under_test.until(lambda: "is let go" in caplog.text)
        with pytest.raises(CatalogUnavailableError):
            await worker.link.build(CHEAP)
        rows.update(ROWS)

        await under_test.settled()


async def test_topics_reach_the_workers_they_are_for_in_order_and_bytes_and_all() -> None:
    async with linked(CatalogTwin(DOCUMENTS), workers=0) as under_test:
        told: dict[str, list[tuple[Any, bytes]]] = {"s1": [], "s2": []}
        first, second = await under_test.join("s1"), await under_test.join("s2")
        first.link.subscribe("fresh", lambda header, payload: told["s1"].append((header["n"], payload)))
        second.link.subscribe("fresh", lambda header, payload: told["s2"].append((header["n"], payload)))
        await under_test.connected(first, second)
        under_test.hub.broadcast("fresh", {"n": 1}, b"\x00one")
        under_test.hub.broadcast("other", {"n": 2})
        under_test.hub.broadcast("fresh", {"n": 3}, snapshot_id="s2")
        under_test.hub.broadcast("fresh", {"n": 4}, snapshot_id="s1")
        under_test.hub.broadcast("fresh", {"n": 5}, snapshot_id="s9")

        await under_test.until(lambda: len(told["s1"]) == len(told["s2"]) == 2)
        assert told == {"s1": [(1, b"\x00one"), (4, b"")], "s2": [(1, b"\x00one"), (3, b"")]}


async def test_a_worker_is_greeted_with_what_was_before_and_misses_nothing_after_it() -> None:
    log: list[int] = []
    heard: list[list[int]] = []

    def greet(snapshot_id: str) -> list[tuple[str, Mapping[str, Any], bytes]]:
        return [("fresh", {"all": list(log), "of": snapshot_id}, b"")]

    def hear(header: Mapping[str, Any], _: bytes) -> None:
        if "all" in header:
            heard.append([*header["all"]])
        else:
            heard[-1].append(header["n"])

    async with linked(CatalogTwin(DOCUMENTS), workers=0) as under_test:
        under_test.hub.on_hello(greet)
        worker = await under_test.join()
        worker.link.subscribe("fresh", hear)
        for number in range(400):
            log.append(number)
            under_test.hub.broadcast("fresh", {"n": number})
            await asyncio.sleep(0)
            if number % 100 == 50 and worker.link._writer is not None:
                worker.link._writer.transport.abort()
        await under_test.until(lambda: bool(heard) and len(heard[-1]) == 400)

        assert heard[-1] == log
        assert len(heard) > 2


async def test_a_greeting_larger_than_what_a_worker_may_leave_unread_is_no_reason_to_cut_it_off() -> None:
    heard: list[int] = []
    settings = replace(QUICK, backlog_bytes_max=1 << 16)
    async with linked(CatalogTwin(DOCUMENTS), settings=settings, workers=0) as under_test:
        under_test.hub.on_hello(lambda _: [("fresh", {}, bytes(8 << 20))] * 3)
        worker = await under_test.join()
        worker.link.subscribe("fresh", lambda _, payload: heard.append(len(payload)))
        await under_test.settled()

        assert heard == [8 << 20] * 3


async def test_without_a_catalogue_there_are_topics_and_no_leaves() -> None:
    heard: list[int] = []
    async with linked(CatalogTwin(), workers=0) as under_test:
        await under_test.hub.stop()
        under_test.hub = KeeperHub(None, lambda _: under_test.rows, QUICK)
        await under_test.hub.start(under_test.path)
        worker = await under_test.join()
        worker.link.subscribe("fresh", lambda header, _: heard.append(header["n"]))
        await under_test.until(lambda: worker.link.connected)
        under_test.hub.broadcast("fresh", {"n": 1})
        with pytest.raises(CatalogUnavailableError):
            await worker.link.build(RED)

        assert heard == [1]
        assert under_test.hub.keepers == {}


FIELDS = st.builds(
    Field, name=st.text(min_size=1), type=st.sampled_from(FieldType), many=st.booleans(), path=st.text(min_size=1)
)
VALUES = st.one_of(
    st.text(st.characters()), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.integers()
)
LEAVES: st.SearchStrategy[Leaf] = st.one_of(
    st.builds(Equals, FIELDS, VALUES),
    st.builds(In, FIELDS, st.lists(VALUES, min_size=1).map(tuple)),
    st.builds(Range, FIELDS, st.none() | VALUES, st.none() | VALUES, st.booleans(), st.booleans()),
    st.builds(Exists, FIELDS),
)


@given(leaf=st.none() | LEAVES)
def test_a_leaf_comes_over_as_it_was(leaf: Leaf | None) -> None:
    import json

    decoded = decode_leaf(json.loads(json.dumps(encode_leaf(leaf))))

    assert decoded == leaf
    assert repr(decoded) == repr(leaf)
