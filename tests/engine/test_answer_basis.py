"""What an answer rests on: while that is the same, so is the answer."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from engine_catalog import KIND, PRICE, TwinBuilder, TwinCatalog

from annserve.cache.bitmaps import BitmapCache
from annserve.cache.shared import SharedCache
from annserve.catalog.evaluate import matches
from annserve.domain.deadline import NO_DEADLINE
from annserve.domain.filter import Equals, Not, Range
from annserve.domain.query import Mode, Options, Query
from annserve.engine import metadata as metadata_module
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.metadata import MetadataReader
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.service.answers import Answers
from annserve.service.servicer import METHODS
from annserve.v1 import filter_pb2 as filters
from annserve.v1 import recommendation_pb2 as parts
from annserve.v1 import recommendation_service_pb2 as messages

CHEAP, RARE = Range(PRICE, maximum=49.0), Equals(KIND, "rare")


class World:
    """A catalogue that changes, and an engine that is told so at once, as by its keeper."""

    def __init__(self, recommender: SnapshotRecommender) -> None:
        self.items = recommender.snapshot.items
        self.store = TwinCatalog(
            {
                self.items.id(row): {"price": row % 100, "kind": "rare" if row % 7 == 0 else "common"}
                for row in range(len(self.items))
            }
        )
        self.bitmaps = BitmapCache()
        self.builder = TwinBuilder(self.store, self.items, self.bitmaps)
        settings = CatalogSettings()
        self.metadata = MetadataReader(self.store, self.bitmaps, settings)  # type: ignore[arg-type]
        self.executor = ThreadPoolExecutor(1)
        self.engine = CatalogRecommender(
            recommender,
            Workbench(self.executor),
            self.store,  # type: ignore[arg-type]
            self.bitmaps,
            self.builder,
            self.metadata,
            settings,
        )
        self.catch_up()

    def change(self, row: int, document: dict[str, object] | None) -> None:
        item_id = self.items.id(row)
        if document is None:
            self.store.documents.pop(item_id, None)
        else:
            self.store.documents[item_id] = document
        self.metadata.forget([item_id])
        self.bitmaps.flip(None, row, document is not None)
        for leaf in self.bitmaps.leaves():
            self.bitmaps.flip(leaf, row, document is not None and matches(leaf, document))

    def catch_up(self) -> None:
        self.bitmaps.synced_at = time.monotonic()


@pytest.fixture
async def world(recommender: SnapshotRecommender) -> World:
    made = World(recommender)
    made.builder.finish(None)
    return made


@pytest.fixture(autouse=True)
def ended(world: World) -> Iterator[None]:
    yield
    world.executor.shutdown()


def question(**options: object) -> Query:
    return Query(mode=Mode.SIMILAR, item_ids=("item-0",), options=Options(**options))  # type: ignore[arg-type]


async def test_without_a_filter_an_answer_rests_on_nothing_while_every_item_is_there(world: World) -> None:
    basis = world.engine.basis(question())
    assert basis is not None
    assert (basis.versions, basis.age_seconds) == ((), None)
    world.bitmaps.stale = True
    assert world.engine.basis(question()) == basis


async def test_without_a_filter_it_rests_on_which_items_are_there_once_one_is_not(world: World) -> None:
    world.change(3, None)
    before = world.engine.basis(question())
    assert before is not None
    assert len(before.versions) == 1
    assert before.age_seconds is not None
    world.change(4, None)
    after = world.engine.basis(question())
    assert after is not None
    assert after.versions != before.versions
    world.bitmaps.stale = True
    assert world.engine.basis(question()) is None
    world.bitmaps.stale, world.bitmaps.present = False, None
    assert world.engine.basis(question()) is None


async def test_under_a_filter_it_rests_on_every_leaf_and_needs_all_of_them(world: World) -> None:
    query = question(filter=Not(CHEAP))
    assert world.engine.basis(query) is None
    world.builder.finish(CHEAP)
    before = world.engine.basis(query)
    assert before is not None
    assert len(before.versions) == 2  # What is not cheap is told from all there is.
    world.builder.finish(RARE)
    world.change(1, {"price": 1, "kind": "rare"})
    assert world.engine.basis(query) == before or world.engine.basis(query).versions == before.versions  # type: ignore[union-attr]
    world.change(1, {"price": 99, "kind": "rare"})
    after = world.engine.basis(query)
    assert after is not None
    assert after.versions != before.versions


async def test_what_is_older_than_the_request_puts_up_with_is_not_rested_on(world: World) -> None:
    world.builder.finish(CHEAP)
    world.bitmaps.synced_at = -math.inf
    bitmap = world.bitmaps.peek(CHEAP)
    assert bitmap is not None
    bitmap.read_at -= 5.0
    assert world.engine.basis(question(filter=CHEAP, max_staleness_seconds=4.0)) is None
    basis = world.engine.basis(question(filter=CHEAP, max_staleness_seconds=6.0))
    assert basis is not None
    assert basis.age_seconds == pytest.approx(5.0, abs=0.5)


async def test_metadata_is_rested_on_as_of_the_last_word_and_only_while_changes_arrive(world: World) -> None:
    query = question(read_mask=("price",))
    basis = world.engine.basis(query)
    assert basis is not None
    assert basis.as_of == world.bitmaps.synced_at
    assert world.engine.basis(question(read_mask=("price",), max_staleness_seconds=1e-9)) is None
    world.bitmaps.stale = True
    assert world.engine.basis(query) is None
    world.bitmaps.stale, world.bitmaps.synced_at = False, -math.inf
    assert world.engine.basis(query) is None


async def test_it_is_known_which_items_changed_since_and_a_loss_changes_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_module, "_ITEMS_KEPT", 3)
    as_of = time.monotonic()
    world.metadata.forget(["a"])
    assert not world.engine.unchanged(["b", "a"], as_of)
    assert world.engine.unchanged(["b"], as_of)
    assert world.engine.unchanged(["b", "a"], time.monotonic())
    world.metadata.forget(["c", "d", "e"])  # More than it remembers: "a" may have been any item.
    assert not world.engine.unchanged(["b"], as_of)
    as_of = time.monotonic()
    assert world.engine.unchanged(["b"], as_of)
    world.metadata.forget_all()
    assert not world.engine.unchanged(["b"], as_of)


def comparable(response: messages.SimilarResponse) -> object:
    """Return all of an answer; of scores what does not depend on the order of summation."""
    answer = response.recommendations
    rows = [
        (row.item_id, round(row.score, 3), {name: str(values) for name, values in row.metadata.items()})
        for row in answer.results
    ]
    return rows, answer.snapshot_id, answer.selectivity, answer.shortfall.SerializeToString()


async def test_whatever_changes_in_between_a_kept_answer_is_the_one_the_engine_would_give(world: World) -> None:
    seeded = random.Random(11)
    cache = SharedCache(None)
    kept, made = Answers(world.engine, cache), Answers(world.engine)
    (similar, *_) = METHODS
    for leaf in (CHEAP, RARE):
        world.builder.finish(leaf)
    cheap = filters.Filter(condition={"field": "price", "range": {"maximum": {"number_value": 49}}})  # type: ignore[arg-type]
    rare = filters.Filter(condition={"field": "kind", "equals": {"string_value": "rare"}})  # type: ignore[arg-type]
    no_rare = filters.Filter(none_of=filters.FilterList(filters=[rare]))
    either = filters.Filter(any_of=filters.FilterList(filters=[cheap, rare]))
    asked = [None, cheap, rare, no_rare, either]
    for step in range(400):
        if step % 4 == 0:
            row = seeded.randrange(60)
            price, kind = seeded.randrange(100), seeded.choice(("rare", "common"))
            world.change(row, seeded.choice(({"price": price, "kind": kind}, {"price": price, "kind": kind}, None)))
        if step % 3 == 0:
            world.catch_up()
        options = parts.RecommendOptions(filter=seeded.choice(asked), page_size=20)
        if seeded.random() < 0.5:
            options.read_mask.paths.extend(("price", "kind"))
        request = messages.SimilarRequest(item_ids=[world.items.id(seeded.randrange(2))], options=options)
        data = request.SerializeToString()
        got = messages.SimilarResponse.FromString(await kept.answer(similar, data, NO_DEADLINE))
        expected = messages.SimilarResponse.FromString(await made.answer(similar, data, NO_DEADLINE))
        assert comparable(got) == comparable(expected)
    assert cache.counts.worker_hits > 40
    cache.close()
