"""Items whose rows become known after bitmaps were read, and what of fresh items is told to workers."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from catalog_twin import CHEAP, DEAR, LEAVES, CatalogTwin, Rows
from kept import Kept, kept

from annserve.domain.fresh import FreshChange
from annserve.keeper.fresh_codec import FreshNews, decode_news, encode_news
from annserve.keeper.fresh_rows import FreshRows
from annserve.keeper.settings import KeeperSettings

DOCUMENTS = {f"i{number}": {"price": number, "colour": "red" if number % 2 else "blue"} for number in range(8)}


async def learnt(under_test: Kept) -> None:
    await under_test.until(lambda: not under_test.keeper._learning)
    await under_test.settled()


def add(under_test: Kept, item_id: str, row: int) -> None:
    """Have an item get a row now."""
    under_test.rows[item_id] = row
    under_test.keeper.learn([item_id])


async def test_an_item_that_gets_a_row_is_judged_by_every_leaf_that_is_known() -> None:
    twin = CatalogTwin(DOCUMENTS | {"new": {"price": 1, "colour": "red"}})
    async with kept(twin, Rows.numbered(8)) as under_test:
        await under_test.settled()
        await asyncio.gather(*(under_test.keeper.build(leaf) for leaf in LEAVES))
        add(under_test, "new", 20)
        await learnt(under_test)
        under_test.assert_true()
        present = under_test.bitmaps.present
        assert present is not None
        assert 20 in present.bitmap
        # A leaf that is read later finds it by itself.
        assert 20 not in (await under_test.keeper.build(DEAR)).bitmap


async def test_what_changes_while_it_is_looked_up_counts() -> None:
    twin = CatalogTwin(DOCUMENTS | {"new": {"price": 1}})
    async with kept(twin, Rows.numbered(8)) as under_test:
        await under_test.settled()
        await under_test.keeper.build(CHEAP)
        twin.select_gate.clear()
        add(under_test, "new", 20)
        await under_test.until(lambda: len(twin.selected) == 1)
        twin.select_gate.set()
        twin.select_gate.clear()
        # It is known to be there, and what was read of its price is on its way.
        await under_test.until(lambda: len(twin.selected) == 2)
        twin.write("new", {"price": 9})
        await under_test.settled()
        twin.select_gate.set()
        await learnt(under_test)
        under_test.assert_true()


async def test_a_catalogue_that_is_away_is_asked_again() -> None:
    twin = CatalogTwin(DOCUMENTS | {"new": {"price": 1}})
    async with kept(twin, Rows.numbered(8)) as under_test:
        await under_test.settled()
        await under_test.keeper.build(CHEAP)
        twin.available = False
        add(under_test, "new", 20)
        await under_test.until(lambda: len(twin.selected) > 2)
        twin.available = True
        await learnt(under_test)
        under_test.assert_true()


@pytest.mark.parametrize("seed", range(40))
async def test_in_whatever_order_it_happens_bitmaps_are_true_in_the_end(seed: int) -> None:
    chance = random.Random(seed)
    twin = CatalogTwin(DOCUMENTS, ids_a_chunk=1)
    twin.steps_a_chunk = lambda: chance.randrange(3)
    settings = KeeperSettings(retry_seconds=0.0, slice_seconds=0.0)
    async with kept(twin, Rows.numbered(8), settings) as under_test:
        await under_test.settled()
        for step in range(120):
            name = f"new{chance.randrange(12)}"
            match chance.randrange(6):
                case 0 if name not in under_test.rows:
                    add(under_test, name, 10 + int(name[3:]))
                case 1:
                    under_test.keeper.build(chance.choice(LEAVES))
                case 2:
                    twin.select_gate.clear()
                case 3:
                    twin.select_gate.set()
                case 4 if step % 5 == 0:
                    twin.lose_changes()
                case _:
                    twin.write(name, chance.choice([None, {"price": 1}, {"price": 9, "colour": "red"}]))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        twin.select_gate.set()
        await learnt(under_test)
        under_test.assert_true()


def test_rows_are_those_of_the_snapshot_and_then_by_number() -> None:
    rows = FreshRows(Rows.numbered(3))
    there = FreshChange(item_id="i1", number=7)
    new = FreshChange(item_id="new", number=4)
    assert rows.add([there, new]) == ["new"]
    assert (len(rows), rows.row("i1"), rows.row("new"), rows.row("nobody")) == (3, 1, 7, None)
    assert rows.add([new]) == []
    # Forgotten by the store and written anew, it is told under another number.
    assert rows.add([FreshChange(item_id="new", number=9)]) == ["new"]
    assert rows.row("new") == 12


@pytest.mark.parametrize("is_all", [False, True])
def test_workers_hear_what_the_keeper_told(is_all: bool) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    changes = [
        FreshChange(item_id="작품", number=0, vector=vectors[0], popularity=0.5),
        FreshChange(item_id="gone", number=1, is_deleted=True),
        FreshChange(item_id="b", number=2, vector=vectors[1]),
        FreshChange(item_id="as it was", number=3),
    ]
    heard = decode_news(*encode_news(FreshNews(changes=changes, version=1 << 61, is_all=is_all)))
    assert (heard.version, heard.is_all) == (1 << 61, is_all)
    for told, found in zip(changes, heard.changes, strict=True):
        assert (found.item_id, found.number, found.popularity) == (told.item_id, told.number, told.popularity)
        assert found.is_deleted == told.is_deleted
        assert (found.vector is None) == (told.vector is None)
        if told.vector is not None:
            np.testing.assert_array_equal(found.vector, told.vector)
    assert decode_news(*encode_news(FreshNews(changes=(), version=0, is_all=True))).changes == []
