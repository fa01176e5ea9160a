from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from spaces import make_points, make_queries, ranked

from annserve.domain.arrays import Scores
from annserve.domain.deadline import Deadline
from annserve.domain.errors import DeadlineExceededError
from annserve.domain.model import Space
from annserve.search import exact
from annserve.search.exact import exact_scores, exact_top_k_batch, top_k


@given(
    scores=arrays(np.float32, st.integers(0, 60), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 7.0])),
    k=st.integers(0, 70),
)
def test_top_k_is_a_stable_sort_cut_at_k(scores: Scores, k: int) -> None:
    rows, best = top_k(scores, k)

    expected = np.argsort(-scores, kind="stable")[:k]
    assert rows.tolist() == expected.tolist()
    assert best.tolist() == scores[expected].tolist()


@pytest.mark.parametrize("k", [1, 10, 4000, 5000, 30_000])
@pytest.mark.parametrize("distinct", [3, 1 << 20])
def test_top_k_of_many_scores_keeps_order_and_ties(k: int, distinct: int) -> None:
    scores = np.random.default_rng(0).integers(0, distinct, 20_000).astype(np.float32)

    assert top_k(scores, k)[0].tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


@given(
    scores=arrays(np.float32, st.integers(0, 200), elements=st.integers(0, 30).map(float)),
    k=st.integers(1, 20),
)
def test_top_k_by_groups_is_the_same_sort(scores: Scores, k: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_GROUPS_MIN", 8)
        patch.setattr(exact, "_SORTED_BEYOND", 0)

        rows, best = top_k(scores, k)

    expected = np.argsort(-scores, kind="stable")[:k]
    assert rows.tolist() == expected.tolist()
    assert best.tolist() == scores[expected].tolist()


def test_top_k_finds_the_best_where_one_group_has_them_and_where_none_does() -> None:
    group_count = 40_000 // (40_000 // exact._GROUPS_MIN)
    of_one_group = np.arange(3, 40_000, group_count)
    scores = np.zeros(40_000, np.float32)
    scores[of_one_group] = of_one_group
    scores[-1] = 50_000.0  # Behind the last whole row of groups.

    assert top_k(scores, 3)[0].tolist() == [39_999, *of_one_group[:-3:-1].tolist()]


def test_top_k_of_many_scores_puts_few_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    kth_best = exact._kth_best

    def counted(scores: Scores, k: int) -> np.float32:
        sizes.append(len(scores))
        return kth_best(scores, k)

    monkeypatch.setattr(exact, "_kth_best", counted)

    top_k(np.random.default_rng(0).random(18_000, np.float32), 200)

    assert sum(sizes) <= 5 * 200


@pytest.mark.parametrize("space", list(Space))
def test_batch_over_many_chunks_equals_a_plain_sort(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "CHUNK_ROWS", 64)
    points = make_points(space, 500, 8)
    queries = make_queries(points, 70)

    rows, scores = exact_top_k_batch(points, queries, 100)

    for query, found, score in zip(queries, rows, scores, strict=True):
        expected_rows, expected_scores = ranked(points, query)
        assert found.tolist() == expected_rows[:100].tolist()
        np.testing.assert_allclose(score, expected_scores[:100], rtol=1e-5, atol=1e-5)


def test_a_long_scan_stops_at_the_deadline_and_a_short_one_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    points = make_points(Space.LIKENESS, 100, 8)
    query = make_queries(points, 1)[0]
    past = Deadline(at=0.0)

    assert len(exact_scores(points, query, deadline=past)) == 100
    monkeypatch.setattr(exact, "CHUNK_ROWS", 30)
    np.testing.assert_allclose(exact_scores(points, query), points.scores(query), rtol=1e-6)
    with pytest.raises(DeadlineExceededError, match="exact search"):
        exact_scores(points, query, deadline=past)
