"""Items that come, change, go and come back, against a plain dictionary of what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annserve.domain.arrays import Vectors
from annserve.domain.errors import UnknownItemError
from annserve.domain.fresh import FreshChange
from annserve.domain.query import Mode, Options, Query, Source
from annserve.engine.fresh_state import FreshState
from annserve.engine.recommender import SnapshotRecommender
from annserve.snapshot.snapshot import Snapshot

USER, SEED = "user-3", "작품-7"
OLD = [SEED, "작품-8", "작품-9", "작품-2999"]
NEW = ["new-0", "new-1", "new-2"]
NUMBERS = {name: number for number, name in enumerate(NEW)}
DIMENSION = 16

Plain = dict[str, tuple[Vectors, float]]

steps = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(OLD + NEW),
            st.sampled_from(["upsert", "upsert", "delete", "restore"]),
            st.integers(0, 1_000),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda change: change[0],
    ),
    min_size=1,
    max_size=6,
)


def plain(snapshot: Snapshot) -> Plain:
    """Return a snapshot's items as a dictionary."""
    rows = range(len(snapshot.items))
    vectors, popularity = np.asarray(snapshot.item_vectors), np.asarray(snapshot.popularity)
    return {snapshot.items.id(row): (vectors[row], float(popularity[row])) for row in rows}


def vector_of(seed: int) -> Vectors:
    """Return a vector that is now and then among the best."""
    numbers = np.random.default_rng(seed)
    vector: Vectors = (numbers.normal(size=DIMENSION) * numbers.choice([0.5, 1.0, 4.0])).astype(np.float32)
    return vector


def change_of(name: str, kind: str, seed: int) -> FreshChange:
    number = NUMBERS.get(name, 1_000)
    if kind == "upsert":
        return FreshChange(item_id=name, number=number, vector=vector_of(seed), popularity=seed / 500)
    return FreshChange(item_id=name, number=number, is_deleted=kind == "delete")


def apply(items: Plain, built: Plain, change: FreshChange) -> None:
    if change.vector is not None:
        items[change.item_id] = change.vector, change.popularity
    else:
        items.pop(change.item_id, None)
        if not change.is_deleted and change.item_id in built:
            items[change.item_id] = built[change.item_id]


class Expected:
    """What is the answer among some items, by the definitions."""

    def __init__(self, snapshot: Snapshot, items: Plain) -> None:
        self.names = list(items)
        self.vectors = np.array([vector for vector, _ in items.values()], np.float64)
        self.popularity = np.array([popularity for _, popularity in items.values()])
        self.exponent, self.weight = snapshot.likeness_exponent, snapshot.popularity_weight

    def similar(self, seed: Vectors) -> dict[str, float]:
        unit = seed.astype(np.float64) / np.linalg.norm(seed.astype(np.float64))
        norms = np.linalg.norm(self.vectors, axis=1)
        return dict(zip(self.names, self.vectors @ unit / norms**self.exponent, strict=True))

    def personal(self, user: Vectors) -> dict[str, float]:
        scores = self.vectors @ user.astype(np.float64) + self.weight * self.popularity
        return dict(zip(self.names, scores, strict=True))

    def popular(self) -> dict[str, float]:
        return dict(zip(self.names, self.popularity, strict=True))


def assert_best(found: list[str], scores: dict[str, float], k: int, without: set[str]) -> None:
    """``found`` are the best of what may be returned, ties aside."""
    allowed = sorted((score for name, score in scores.items() if name not in without), reverse=True)[:k]
    assert len(set(found)) == len(found)
    assert not without & set(found)
    assert [scores[name] for name in found] == pytest.approx(allowed, rel=1e-4, abs=1e-5)


class Built:
    """A snapshot that hypothesis does not print."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


@pytest.fixture(scope="module")
def of(snapshot: Snapshot) -> Built:
    return Built(snapshot)


def assert_ranked(
    found: list[str], scores: dict[str, float], without: set[str], changed: set[str], *, exact: bool
) -> None:
    """``found`` are the ten best; of those that have not changed since, the graph may miss one now and then."""
    if exact:
        assert_best(found, scores, 10, without)
        return
    best = sorted(scores.keys() - without, key=lambda name: -scores[name])[:10]
    assert len(found) == 10
    assert not without & set(found)
    assert changed & set(best) <= set(found)
    assert len(set(best) & set(found)) >= 7
    assert [scores[name] for name in found] == sorted((scores[name] for name in found), reverse=True)


@given(steps=steps, begin_again=st.booleans())
@settings(max_examples=40, deadline=None)
def test_answers_are_those_of_what_is_there_now(
    of: Built, steps: list[list[tuple[str, str, int]]], begin_again: bool
) -> None:
    snapshot = of.snapshot
    built = plain(snapshot)
    items, fresh = dict(built), FreshState(snapshot)
    recommender = SnapshotRecommender(snapshot, fresh)
    assert snapshot.histories is not None
    row = snapshot.users.row(USER)
    assert row is not None
    seen = set(snapshot.items.ids(snapshot.histories.of(row)))
    last: dict[str, FreshChange] = {}
    for version, batch in enumerate(steps):
        changes = [change_of(*step) for step in batch]
        for change in changes:
            apply(items, built, change)
            last[change.item_id] = change
        fresh.apply(changes, version)
    if begin_again:
        # As whoever comes later is told: the last word on each, at once.
        fresh.begin(list(last.values()), len(steps))
    expected = Expected(snapshot, items)

    assert len(fresh.items) == len(items)
    changed = {name for name, change in last.items() if change.vector is not None}
    for exact in (False, True):
        personal = recommender.recommend(Query(mode=Mode.PERSONALIZE, user_id=USER, options=Options(k=10, exact=exact)))
        assert_ranked(
            list(personal.item_ids), expected.personal(snapshot.user_vectors[row]), seen, changed, exact=exact
        )
        for seed in OLD + NEW:
            query = Query(mode=Mode.SIMILAR, item_ids=(seed,), options=Options(k=10, exact=exact, strict=True))
            if seed not in items:
                with pytest.raises(UnknownItemError):
                    recommender.recommend(query)
                continue
            answer = recommender.recommend(query)
            assert_ranked(list(answer.item_ids), expected.similar(items[seed][0]), {seed}, changed, exact=exact)
            assert list(answer.scores) == sorted(answer.scores, reverse=True)
    popular = recommender.recommend(Query(mode=Mode.PERSONALIZE, user_id="nobody", options=Options(k=10)))
    assert popular.source is Source.POPULAR
    assert_best(list(popular.item_ids), expected.popular(), 10, set())
    candidates = tuple(OLD + NEW)
    options = Options(k=10, candidate_item_ids=candidates, exclude_item_ids=(NEW[0],), exclude_seen=False)
    chosen = recommender.recommend(Query(mode=Mode.PERSONALIZE, user_id=USER, options=options))
    scores = expected.personal(snapshot.user_vectors[row])
    assert_best(list(chosen.item_ids), {name: scores[name] for name in candidates if name in items}, 10, {NEW[0]})


def test_nothing_fresh_is_the_snapshot_itself(snapshot: Snapshot) -> None:
    fresh = FreshState(snapshot)
    fresh.begin([], 5)
    assert not fresh.items.versions
    fresh.apply([change_of("new-0", "upsert", 1)], 6)
    assert list(fresh.items.versions) == [6]
    before = fresh.items
    fresh.apply([change_of("new-0", "delete", 1)], 7)
    # An answer under way goes on with what it began with.
    assert before.row("new-0") is not None
    assert fresh.items.row("new-0") is None
