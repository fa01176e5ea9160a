from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from annserve.domain.arrays import Rows, Vectors
from annserve.domain.deadline import Deadline
from annserve.domain.errors import (
    DeadlineExceededError,
    FoldInUnavailableError,
    SnapshotNotHereError,
    UnknownItemError,
    UnknownUserError,
)
from annserve.domain.query import Answer, LimitingRule, Mode, Options, Query, SearchPath, Source, WeightedItem
from annserve.engine.recommender import SnapshotRecommender
from annserve.snapshot.snapshot import Snapshot

SEED, OTHER = "작품-7", "작품-8"
USER = "user-3"


def similar(*item_ids: str, **options: Any) -> Query:
    return Query(mode=Mode.SIMILAR, item_ids=item_ids, options=Options(**options))


def personalize(user_id: str | None = USER, *recent: str, **options: Any) -> Query:
    recent_items = tuple(WeightedItem(item_id=item_id) for item_id in recent)
    return Query(mode=Mode.PERSONALIZE, user_id=user_id, recent_items=recent_items, options=Options(**options))


def related(
    user_impact: float, item_ids: tuple[str, ...] = (SEED,), user_id: str | None = USER, **options: Any
) -> Query:
    return Query(
        mode=Mode.RELATED, item_ids=item_ids, user_id=user_id, user_impact=user_impact, options=Options(**options)
    )


def rows_of(snapshot: Snapshot, item_ids: Iterable[str]) -> Rows:
    rows, missing = snapshot.items.rows(item_ids)
    assert not missing
    return rows


def likeness_of(snapshot: Snapshot, *item_ids: str) -> Vectors:
    """Return the likeness of every item to ``item_ids``, by the definition."""
    vectors = np.asarray(snapshot.item_vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    seed = np.mean([vectors[row] / norms[row] for row in rows_of(snapshot, item_ids)], axis=0)
    likeness: Vectors = (vectors @ seed / norms**snapshot.likeness_exponent).astype(np.float32)
    return likeness


def affinity_of(snapshot: Snapshot, user_vector: Vectors, weight: float = 0.3) -> Vectors:
    """Return the affinity of every item to a user, by the definition."""
    return np.asarray(snapshot.item_vectors) @ user_vector + weight * np.asarray(snapshot.popularity)


def best(snapshot: Snapshot, scores: Vectors, k: int, without: set[str]) -> list[str]:
    ranked = snapshot.items.ids(np.argsort(-scores, kind="stable"))
    return [item_id for item_id in ranked if item_id not in without][:k]


def user_vector(snapshot: Snapshot, user_id: str = USER) -> Vectors:
    return snapshot.user_vectors[snapshot.users.row(user_id)]


def seen_by(snapshot: Snapshot, user_id: str = USER) -> set[str]:
    assert snapshot.histories is not None
    row = snapshot.users.row(user_id)
    assert row is not None
    return set(snapshot.items.ids(snapshot.histories.of(row)))


@pytest.mark.parametrize("exact", [False, True])
def test_similar_ranks_by_likeness_without_the_seeds(
    exact: bool, snapshot: Snapshot, recommender: SnapshotRecommender
) -> None:
    answer = recommender.recommend(similar(SEED, OTHER, exact=exact))

    assert answer.item_ids == best(snapshot, likeness_of(snapshot, SEED, OTHER), 10, {SEED, OTHER})
    assert answer.source is Source.ITEM_VECTOR
    assert answer.search_path is (SearchPath.EXACT if exact else SearchPath.HNSW)
    assert list(answer.scores) == sorted(answer.scores, reverse=True)


def test_a_repeated_seed_counts_once(recommender: SnapshotRecommender) -> None:
    once, twice = (recommender.recommend(similar(*seeds)) for seeds in ((SEED, OTHER), (SEED, OTHER, SEED)))

    assert once.item_ids == twice.item_ids
    assert once.scores == twice.scores


def test_personalize_ranks_by_affinity_without_what_the_user_had(
    snapshot: Snapshot, recommender: SnapshotRecommender
) -> None:
    answer = recommender.recommend(personalize())

    assert answer.item_ids == best(snapshot, affinity_of(snapshot, user_vector(snapshot)), 10, seen_by(snapshot))
    assert answer.source is Source.USER_VECTOR


def test_what_the_user_had_comes_back_when_asked_for(snapshot: Snapshot, recommender: SnapshotRecommender) -> None:
    answer = recommender.recommend(personalize(exclude_seen=False, k=500))

    assert set(answer.item_ids) & seen_by(snapshot)


@pytest.mark.parametrize("weight", [-2.0, 0.0, 2.0])
def test_the_weight_of_popularity_can_be_set_per_request(
    weight: float, snapshot: Snapshot, recommender: SnapshotRecommender
) -> None:
    answer = recommender.recommend(personalize(popularity_weight=weight, exact=True))

    expected = best(snapshot, affinity_of(snapshot, user_vector(snapshot), weight), 10, seen_by(snapshot))
    assert answer.item_ids == expected


def test_recent_items_are_folded_in_and_replace_the_stored_vector(
    snapshot: Snapshot, recommender: SnapshotRecommender
) -> None:
    known, unknown = (recommender.recommend(personalize(user, SEED, OTHER)) for user in (USER, None))

    vectors = np.asarray(snapshot.item_vectors[rows_of(snapshot, [SEED, OTHER])], dtype=np.float64)
    system = snapshot.gram + 9.0 * vectors.T @ vectors + 5.0 * np.eye(vectors.shape[1])
    folded = np.linalg.solve(system, 10.0 * vectors.sum(axis=0)).astype(np.float32)
    assert unknown.item_ids == best(snapshot, affinity_of(snapshot, folded), 10, {SEED, OTHER})
    assert unknown.source is known.source is Source.FOLD_IN
    assert known.item_ids == best(snapshot, affinity_of(snapshot, folded), 10, {SEED, OTHER} | seen_by(snapshot))


def test_of_too_many_recent_items_the_latest_count(recommender: SnapshotRecommender) -> None:
    latest = [f"작품-{number}" for number in range(100, 110)]

    with_older = recommender.recommend(personalize(None, "작품-1", *latest, exclude_seen=False))
    without = recommender.recommend(personalize(None, *latest, exclude_seen=False))

    assert with_older.scores == without.scores


def test_weights_of_recent_items_count(recommender: SnapshotRecommender) -> None:
    def first(*weights: float) -> Answer:
        recent = tuple(
            WeightedItem(item_id=item_id, weight=weight) for item_id, weight in zip((SEED, OTHER), weights, strict=True)
        )
        options = Options(exclude_seen=False, popularity_weight=0.0)
        return recommender.recommend(Query(mode=Mode.PERSONALIZE, recent_items=recent, options=options))

    assert first(100.0, 0.01).item_ids[0] == SEED
    assert first(0.01, 100.0).item_ids[0] == OTHER


def test_an_unknown_user_gets_popular_items_and_is_told_so(
    snapshot: Snapshot, recommender: SnapshotRecommender
) -> None:
    answer = recommender.recommend(personalize("누구"))

    assert answer.source is Source.POPULAR
    assert answer.missing_ids == ("누구",)
    assert answer.item_ids == snapshot.items.ids(snapshot.popular_rows[:10])


def test_an_unknown_user_with_known_recent_items_is_folded_in(recommender: SnapshotRecommender) -> None:
    answer = recommender.recommend(personalize("누구", "없음", SEED))

    assert answer.source is Source.FOLD_IN
    assert answer.missing_ids == ("없음", "누구")


def test_unknown_seeds_are_listed_and_the_others_answer(recommender: SnapshotRecommender) -> None:
    mixed, alone = recommender.recommend(similar("없음", SEED)), recommender.recommend(similar("없음"))

    assert mixed.missing_ids == alone.missing_ids == ("없음",)
    assert mixed.item_ids == recommender.recommend(similar(SEED)).item_ids
    assert alone.source is Source.POPULAR


def test_a_strict_request_fails_on_an_id_without_a_vector(recommender: SnapshotRecommender) -> None:
    with pytest.raises(UnknownItemError, match="없음"):
        recommender.recommend(similar(SEED, "없음", strict=True))
    with pytest.raises(UnknownUserError, match="누구"):
        recommender.recommend(personalize("누구", strict=True))
    assert recommender.recommend(personalize("누구", SEED, strict=True)).source is Source.FOLD_IN


def test_related_at_either_end_ranks_as_similar_and_as_personalize(recommender: SnapshotRecommender) -> None:
    context = (SEED, OTHER)
    taste_only = recommender.recommend(related(1.0, context))
    context_only = recommender.recommend(related(0.0, context, exclude_seen=False))

    assert context_only.item_ids == recommender.recommend(similar(*context)).item_ids
    assert taste_only.item_ids == recommender.recommend(personalize(exclude_item_ids=context)).item_ids


@pytest.mark.parametrize("user_impact", [0.2, 0.5, 0.8])
def test_related_in_between_is_the_blend_of_standardised_scores_over_the_union_of_both_lists(
    user_impact: float, snapshot: Snapshot, recommender: SnapshotRecommender
) -> None:
    answer = recommender.recommend(related(user_impact, exact=True))

    without = {SEED} | seen_by(snapshot)
    scores = {"likeness": likeness_of(snapshot, SEED), "affinity": affinity_of(snapshot, user_vector(snapshot))}
    union = set().union(*(best(snapshot, space, 100, without) for space in scores.values()))
    rows = np.sort(rows_of(snapshot, union))
    z = {name: (space[rows] - space[rows].mean()) / space[rows].std() for name, space in scores.items()}
    blend = (1 - user_impact) * z["likeness"] + user_impact * z["affinity"]
    order = np.argsort(-blend, kind="stable")[:10]
    assert answer.item_ids == snapshot.items.ids(rows[order])
    np.testing.assert_allclose(answer.scores, blend[order], atol=1e-4)
    assert answer.source is Source.BLEND
    assert answer.user_impact == user_impact


def test_more_user_impact_never_lowers_affinity_nor_raises_likeness_over_exact_lists(
    recommender: SnapshotRecommender,
) -> None:
    affinity, likeness = [], []
    for user_impact in np.linspace(0, 1, 11):
        answer = recommender.recommend(related(float(user_impact), exact=True, explain=True))
        assert answer.explanation is not None
        affinity.append(np.mean(answer.explanation.affinity_scores))
        likeness.append(np.mean(answer.explanation.likeness_scores))

    assert (np.diff(affinity) >= -1e-6).all()
    assert (np.diff(likeness) <= 1e-6).all()
    assert affinity[-1] > affinity[0]
    assert likeness[0] > likeness[-1]


def test_related_says_which_half_could_not_take_part(recommender: SnapshotRecommender) -> None:
    no_user = recommender.recommend(related(0.7, user_id="누구"))
    no_context = recommender.recommend(related(0.7, item_ids=("없음",)))

    assert (no_user.user_impact, no_user.source) == (0.0, Source.ITEM_VECTOR)
    assert (no_context.user_impact, no_context.source) == (1.0, Source.USER_VECTOR)


def test_only_candidates_are_returned_and_the_shortfall_says_so(recommender: SnapshotRecommender) -> None:
    answer = recommender.recommend(similar(SEED, candidate_item_ids=(OTHER, "작품-9", "없음", SEED)))

    assert set(answer.item_ids) == {OTHER, "작품-9"}
    assert answer.shortfall is not None
    assert (answer.shortfall.requested, answer.shortfall.returned, answer.shortfall.eligible) == (10, 2, 2)
    assert answer.shortfall.limiting_rule is LimitingRule.CANDIDATE_ITEM_IDS
    assert answer.selectivity == pytest.approx(2 / 3_000)


def test_no_candidates_give_an_empty_answer(recommender: SnapshotRecommender) -> None:
    for query in (
        similar(SEED, candidate_item_ids=()),
        related(0.5, candidate_item_ids=()),
        personalize("누구", candidate_item_ids=()),
    ):
        answer = recommender.recommend(query)

        assert answer.item_ids == []
        assert answer.shortfall is not None


def test_exclusions_are_to_blame_where_candidates_would_have_filled_the_page(recommender: SnapshotRecommender) -> None:
    candidates = tuple(f"작품-{number}" for number in range(10))
    answer = recommender.recommend(similar(SEED, candidate_item_ids=candidates, exclude_item_ids=candidates[:5]))

    assert set(answer.item_ids) == {"작품-5", "작품-6", "작품-8", "작품-9"}
    assert answer.shortfall is not None
    assert answer.shortfall.limiting_rule is LimitingRule.EXCLUDED


def test_popular_items_respect_candidates_and_exclusions(recommender: SnapshotRecommender) -> None:
    popular = recommender.recommend(personalize("누구")).item_ids

    excluded = recommender.recommend(personalize("누구", exclude_item_ids=tuple(popular[:3]), k=7))
    candidates = recommender.recommend(personalize("누구", candidate_item_ids=tuple(reversed(popular[2:5]))))

    assert excluded.item_ids == popular[3:]
    assert candidates.item_ids == popular[2:5]


def test_another_pinned_snapshot_is_refused(snapshot: Snapshot, recommender: SnapshotRecommender) -> None:
    assert recommender.recommend(similar(SEED, snapshot_id=snapshot.id)).snapshot_id == snapshot.id
    with pytest.raises(SnapshotNotHereError, match=snapshot.id):
        recommender.recommend(similar(SEED, snapshot_id="20260101T000000Z-00000000"))


def test_a_deadline_that_has_passed_is_noticed(recommender: SnapshotRecommender) -> None:
    with pytest.raises(DeadlineExceededError, match="search"):
        recommender.recommend(similar(SEED), Deadline.after(0.0))


def test_an_explanation_adds_up(recommender: SnapshotRecommender) -> None:
    answer = recommender.recommend(personalize(explain=True, popularity_weight=0.5))
    plain = recommender.recommend(
        personalize(explain=True, popularity_weight=0.0, candidate_item_ids=tuple(answer.item_ids))
    )

    assert answer.explanation is not None
    assert plain.explanation is not None
    taste = dict(zip(plain.item_ids, plain.explanation.affinity_scores, strict=True))
    for item_id, score, affinity, prior in zip(
        answer.item_ids,
        answer.scores,
        answer.explanation.affinity_scores,
        answer.explanation.popularity_contributions,
        strict=True,
    ):
        assert score == pytest.approx(affinity, abs=1e-5)
        assert affinity == pytest.approx(taste[item_id] + prior, abs=1e-4)
    assert [stage for stage, _ in answer.explanation.stage_us] == ["query_vectors", "search", "order"]


def test_recent_items_need_fold_in_constants(imported: SnapshotRecommender) -> None:
    assert imported.recommend(personalize()).source is Source.USER_VECTOR
    with pytest.raises(FoldInUnavailableError):
        imported.recommend(personalize(USER, SEED))


def test_an_exact_search_is_estimated_to_cost_more_than_a_graph_search(recommender: SnapshotRecommender) -> None:
    assert recommender.estimated_us(similar(SEED, exact=True)) > recommender.estimated_us(similar(SEED))
    assert recommender.estimated_us(related(0.5, exact=True)) > recommender.estimated_us(similar(SEED, exact=True))


def test_a_long_history_is_estimated_to_cost_more_than_none(recommender: SnapshotRecommender) -> None:
    assert recommender.estimated_us(personalize()) > recommender.estimated_us(personalize(exclude_seen=False))


def test_a_strict_request_whose_recent_items_are_all_unknown_fails(recommender: SnapshotRecommender) -> None:
    with pytest.raises(UnknownItemError, match="없음"):
        recommender.recommend(personalize(None, "없음", strict=True))
    assert recommender.recommend(personalize(USER, "없음", strict=True)).source is Source.USER_VECTOR


def test_the_catalogue_is_to_blame_where_it_could_not_have_filled_the_page(imported: SnapshotRecommender) -> None:
    def rule(k: int) -> LimitingRule:
        shortfall = imported.recommend(similar(SEED, k=k)).shortfall
        assert shortfall is not None
        return shortfall.limiting_rule

    assert rule(3_000) is LimitingRule.EXCLUDED
    assert rule(3_001) is LimitingRule.CATALOGUE


def test_folding_in_and_long_lists_of_ids_are_estimated_to_cost_something(recommender: SnapshotRecommender) -> None:
    none = recommender.estimated_us(personalize(None, exclude_seen=False, candidate_item_ids=(SEED,)))
    folded = recommender.estimated_us(personalize(None, *[SEED] * 100, exclude_seen=False, candidate_item_ids=(SEED,)))
    listed = recommender.estimated_us(personalize(None, exclude_seen=False, candidate_item_ids=(SEED,) * 1_000))

    assert folded > none + 100
    assert listed > none + 900
