from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp

from annserve.training.metrics import list_metrics


def targets(*rows: list[int], item_count: int = 200) -> sp.csr_array:
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return sp.csr_array((np.ones(len(users)), (users, np.concatenate(rows))), shape=(len(rows), item_count))


COUNTS = np.arange(200, 0, -1)
"""Item 0 was had by 200 users, item 199 by one."""


def test_recall_is_divided_by_the_smaller_of_k_and_the_number_of_targets() -> None:
    lists = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])

    one_of_two_targets = list_metrics(lists[:1], targets([0, 9]), COUNTS, 200)
    four_of_five_targets = list_metrics(lists[1:], targets([0, 1, 2, 3, 9]), COUNTS, 200)

    assert one_of_two_targets.recall == 0.5
    assert four_of_five_targets.recall == 1.0


def test_ndcg_counts_an_earlier_hit_for_more() -> None:
    first = list_metrics(np.array([[5, 0]]), targets([5]), COUNTS, 200)
    second = list_metrics(np.array([[0, 5]]), targets([5]), COUNTS, 200)

    assert first.ndcg == 1.0
    assert second.ndcg == pytest.approx(1 / math.log2(3))


def test_an_empty_place_is_no_hit_and_no_item() -> None:
    metrics = list_metrics(np.array([[0, -1, -1]]), targets([0, 199]), COUNTS, 200)

    assert metrics.recall == 0.5
    assert metrics.coverage == 1 / 200


def test_novelty_is_the_surprise_in_bits_of_the_listed_items() -> None:
    assert list_metrics(np.array([[0]]), targets([1]), COUNTS, 200).novelty == 0.0
    assert list_metrics(np.array([[100]]), targets([1]), COUNTS, 200).novelty == pytest.approx(1.0)


def test_the_most_popular_hundredth_is_counted_by_place() -> None:
    metrics = list_metrics(np.array([[0, 1, 2, 3], [1, 0, 5, 6]]), targets([9], [9]), COUNTS, 200)

    assert metrics.most_popular == 0.5


def test_the_interval_covers_the_mean_and_narrows_with_more_users() -> None:
    rng = np.random.default_rng(0)

    def judged(user_count: int) -> tuple[float, float, float]:
        lists = rng.integers(0, 50, (user_count, 10))
        metrics = list_metrics(lists, targets(*([[3, 7, 11]] * user_count)), COUNTS, 200)
        return metrics.recall_low, metrics.recall, metrics.recall_high

    few, many = judged(20), judged(2_000)
    assert few[0] <= few[1] <= few[2]
    assert many[0] < many[1] < many[2]
    assert many[2] - many[0] < few[2] - few[0]


def test_a_user_who_stands_there_twice_counts_once_with_the_mean_recall() -> None:
    lists = np.array([[0], [1], [0], [9]])

    metrics = list_metrics(lists, targets([0], [9], [0], [9]), COUNTS, 200, lot_count=2)

    assert metrics.user_count == 2
    assert metrics.recall == 0.75
    assert metrics.recall_low >= 0.5
