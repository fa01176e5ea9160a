"""The queries of ``annserve bench search`` are not those a graph was tuned with."""

from __future__ import annotations

import numpy as np

from annserve.cli.bench import _untuned


def test_queries_a_graph_was_tuned_with_are_dropped() -> None:
    queries = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)

    assert _untuned(queries, queries[::2]).tolist() == list(range(1, 200, 2))


def test_where_too_few_would_be_left_all_are_asked() -> None:
    queries = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)

    assert _untuned(queries, queries[:90]).tolist() == list(range(100))
