from __future__ import annotations

import numpy as np
import pytest
from spaces import GRAPH_IS_DEAR, Built

from annserve.search import restriction as restrictions
from annserve.search.restriction import Restriction


def test_rows_kept_side_by_side_are_bounded_over_all_restrictions(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built.index(GRAPH_IS_DEAR)
    several = [Restriction(np.arange(start, index.count, 10), index.count) for start in range(4)]
    monkeypatch.setattr(restrictions, "_GATHERED", restrictions._Gathered())
    monkeypatch.setattr(restrictions, "GATHERED_BYTES_MAX", 2 * index.points.vectors.nbytes // 10)

    answers = [index.search(built.queries[0], 10, restriction=one).rows.tolist() for one in several for _ in range(3)]

    kept = [next(iter(one.selections.values())).gathered is not None for one in several]
    assert kept == [False, False, True, True]
    again = [index.search(built.queries[0], 10, restriction=one).rows.tolist() for one in several]
    assert again == answers[::3]
