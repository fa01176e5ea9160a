"""What every catalogue store does alike: one suite, run on the file and on a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from catalog_stores import STORES, empty_store, ids_passing
from mongod import MongoServer

from annserve.catalog.evaluate import matches, metadata_of
from annserve.domain.catalog import CatalogStore, ChangesLostError, Document, HistoryEntry
from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError, InputError
from annserve.domain.filter import And, Equals, Exists, Filter, In, Leaf, Not, Or, Range, leaves_of

WITHIN_SECONDS = 10.0


@pytest.fixture(params=STORES)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, mongod: MongoServer, database_name: str
) -> AsyncIterator[CatalogStore]:
    async with empty_store(request.param, tmp_path, mongod.uri, database_name) as opened:
        yield opened


def documents() -> dict[str, Document]:
    """Items with values that are missing, null, of another type, several."""
    generator = np.random.default_rng(7)

    def one_of(values: list[object]) -> object:
        return values[generator.integers(len(values))]

    prices: list[object] = [1, 2.5, 2**53, 2**53 + 1, -0.0, "5", None, True, [1, 9], {"price": 1}]
    countries: list[object] = ["France", "Österreich", "\U0001f600", "", None, 3, ["France", "Spain"]]
    moments: list[object] = [datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 6)]
    items: dict[str, Document] = {}
    for number in range(60):
        document: dict[str, object] = {}
        if generator.random() < 0.8:
            document["price"] = one_of(prices)
        if generator.random() < 0.8:
            document["tags"] = one_of([["x", "y"], ["z"], [], "x", [["x"]], [1, "y"], None])
        if generator.random() < 0.8:
            origin = {"country": one_of(countries)}
            document["origin"] = one_of([origin, [origin, {"country": "Spain"}, 4], "France", {}])
        if generator.random() < 0.8:
            document["released"] = one_of(moments)
        items[f"item-{number}"] = document
    return items


def leaves(store: CatalogStore) -> list[Leaf]:
    price, tags, country, released = (store.schema.fields[name] for name in ("price", "tags", "country", "released"))
    day_3_ms = 1_704_240_000_000
    return [
        Equals(price, 1.0),
        Equals(price, 2.0**53),
        In(price, (0.0, 2.5)),
        Range(price, minimum=1.0, maximum=5.0, minimum_excluded=True),
        Equals(tags, "x"),
        Range(tags, minimum="y"),
        In(country, ("France", "\U0001f600")),
        Range(country, minimum="G", maximum="\uffff"),
        Range(released, maximum=day_3_ms, maximum_excluded=True),
        *map(Exists, (price, tags, country, released)),
    ]


def filters(store: CatalogStore) -> list[Filter]:
    first, *rest = leaves(store)
    return [*leaves(store), *map(Not, leaves(store)), And((Not(first), rest[3])), Or((first, Not(And(tuple(rest)))))]


async def test_leaf_brings_the_ids_of_all_items_that_pass(store: CatalogStore) -> None:
    items = documents()
    await store.upsert(items.items())

    assert await ids_passing(store, None) == items.keys()
    for leaf in leaves(store):
        expected = {item_id for item_id, document in items.items() if matches(leaf, document)}
        assert expected, "a leaf that nothing passes shows little"
        assert await ids_passing(store, leaf) == expected


async def test_selection_keeps_what_exists_and_passes(store: CatalogStore) -> None:
    items = documents()
    await store.upsert(items.items())
    asked = [*items, "unknown", ""]

    assert (await store.select(asked)).keys() == items.keys()
    assert await store.select([]) == {}
    for filter_ in filters(store):
        assert list(leaves_of(filter_))
        expected = {item_id for item_id, document in items.items() if matches(filter_, document)}
        assert (await store.select(asked, filter_)).keys() == expected


async def test_selection_brings_the_values_of_the_declared_type(store: CatalogStore) -> None:
    items = documents()
    await store.upsert(items.items())
    fields = list(store.schema.fields.values())

    found = await store.select(list(items), fields=fields)

    assert found == {item_id: metadata_of(fields, document) for item_id, document in items.items()}
    assert {name for metadata in found.values() for name in metadata} == store.schema.fields.keys()


async def test_document_is_replaced_whole_and_deleted_for_good(store: CatalogStore) -> None:
    price, tags = store.schema.fields["price"], store.schema.fields["tags"]
    assert await store.upsert([("a", {"price": 1, "tags": ["x"]}), ("b", {"price": 2})]) == 2
    assert await store.upsert([("a", {"price": 3})]) == 1

    assert await store.select(["a"], fields=[price, tags]) == {"a": {"price": (3.0,)}}
    assert await ids_passing(store, Exists(tags)) == set()
    assert await store.delete(["a", "unknown"]) == 1
    assert await store.delete(["a"]) == 0
    assert await ids_passing(store, None) == {"b"}


@pytest.mark.parametrize("item_id", ["", "x" * 129, "a\nb"])
async def test_item_without_a_valid_id_is_refused_or_never_returned(store: CatalogStore, item_id: str) -> None:
    with pytest.raises(InputError):
        await store.upsert([(item_id, {"price": 1})])

    assert await ids_passing(store, None) == set()
    assert await store.select([item_id]) == {}


@pytest.mark.parametrize("item_id", ["", "x" * 129, "a\nb", "a\ud800"])
async def test_an_invalid_id_among_others_is_refused_before_any_of_them_is_written(
    store: CatalogStore, item_id: str
) -> None:
    await store.upsert([("there", {"price": 1})])

    with pytest.raises(InputError, match=r"is no item id: it must") as refusal:
        await store.upsert([("before", {}), (item_id, {}), ("after", {})])

    assert refusal.value.metadata == {"item_id": item_id}
    assert await ids_passing(store, None) == {"there"}
    await store.upsert([("later", {})])
    assert await ids_passing(store, None) == {"there", "later"}


async def test_written_items_are_told_of_or_the_changes_are_lost(store: CatalogStore) -> None:
    await store.upsert([("kept", {"price": 1}), ("gone", {"price": 1})])
    changes = store.changes()
    async with asyncio.timeout(WITHIN_SECONDS):
        while await anext(changes):
            pass
        await store.upsert([("kept", {"price": 2})])
        await store.delete(["gone"])
        told: dict[str, Document | None] = {}
        try:
            while len(told) < 2:
                told.update({change.item_id: change.document for change in await anext(changes)})
        except ChangesLostError:
            return  # Whoever follows reads everything anew.

    assert told["gone"] is None
    assert told["kept"] is not None
    assert told["kept"]["price"] == 2


async def test_nothing_to_tell_is_said_again_and_again(store: CatalogStore) -> None:
    changes = store.changes()
    async with asyncio.timeout(WITHIN_SECONDS):
        assert [list(await anext(changes)) for _ in range(3)] == [[], [], []]


async def test_history_is_the_newest_entries_oldest_first(store: CatalogStore) -> None:
    entries = [
        HistoryEntry(item_id=f"i{n}", event="bought" if n % 2 else "viewed", time_ms=1_000 * n) for n in range(6)
    ]
    await store.add_history("u", entries[:3])
    await store.add_history("u", entries[3:])
    await store.add_history("other", entries[:1])

    assert list(await store.history("u", 4)) == entries[2:]
    assert list(await store.history("u", 100)) == entries
    assert list(await store.history("nobody", 4)) == []


async def test_erased_user_is_forgotten_and_others_are_not(store: CatalogStore) -> None:
    entry = HistoryEntry(item_id="i", time_ms=1)
    await store.add_history("u", [entry, entry])
    await store.add_history("other", [entry])

    assert await store.erase_history("u") == 2
    assert await store.erase_history("u") == 0
    assert list(await store.history("u", 10)) == []
    assert list(await store.history("other", 10)) == [entry]


async def test_drift_counts_what_is_missing_and_what_is_of_another_type(store: CatalogStore) -> None:
    await store.upsert([("a", {"price": 1, "tags": "x"}), ("b", {"price": "1"}), ("c", {"tags": [3], "price": None})])

    drift = {one.field: one for one in await store.drift()}

    assert drift.keys() == store.schema.fields.keys()
    assert (drift["price"].missing, drift["price"].other_type, set(drift["price"].examples)) == (0, 2, {"b", "c"})
    assert (drift["tags"].missing, drift["tags"].other_type, drift["tags"].examples) == (1, 1, ("c",))
    assert (drift["released"].missing, drift["released"].other_type) == (3, 0)


async def test_nothing_is_looked_up_after_the_deadline(store: CatalogStore) -> None:
    past = Deadline.after(-1)
    with pytest.raises(DeadlineExceededError):
        await store.select(["a"], deadline=past)
    with pytest.raises(DeadlineExceededError):
        await store.history("u", 1, past)


async def test_store_that_answers_is_available(store: CatalogStore) -> None:
    await store.select(["a"])

    assert store.available
