from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from annserve.training.bad_rows import ReadReport
from annserve.training.interactions import Interactions
from annserve.training.pairs import DAY_MS

MakeInteractions = Callable[[Sequence[tuple[str, str, float]]], Interactions]


@pytest.fixture(scope="session")
def interactions_of() -> MakeInteractions:
    """Return a function from (user, item, day) triples to interactions."""

    def make(triples: Sequence[tuple[str, str, float]]) -> Interactions:
        user_ids = list(dict.fromkeys(user for user, _, _ in triples))
        item_ids = list(dict.fromkeys(item for _, item, _ in triples))
        return Interactions(
            user_ids=user_ids,
            item_ids=item_ids,
            users=np.array([user_ids.index(user) for user, _, _ in triples], dtype=np.int32),
            items=np.array([item_ids.index(item) for _, item, _ in triples], dtype=np.int32),
            weights=np.ones(len(triples), dtype=np.float32),
            times=np.array([round(day * DAY_MS) for _, _, day in triples], dtype=np.int64),
            report=ReadReport(row_count=len(triples), bad_counts={}, examples=[]),
        )

    return make
