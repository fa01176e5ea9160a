"""What a user was shown lately, as a weight for each candidate."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from annserve.domain.arrays import Rows, Scores
from annserve.domain.events import ShownItem
from annserve.engine.live_items import LiveItems
from annserve.engine.order.weights import rotation_weights
from annserve.placements.recipe import Rotation

RULE = "rotation"
SHOWN_MAX = 500
"""How many items shown last are looked at."""


def rotated(rows: Rows, items: LiveItems, shown: Sequence[ShownItem], rotation: Rotation) -> Scores | None:
    """Return the weight of each of ``rows`` now; None where none of them was shown."""
    now_ms = time.time() * 1e3
    age_of = {items.row(one.item_id): (now_ms - one.time_ms) / 1e3 for one in shown}
    ages = [age_of.get(row, np.inf) for row in rows.tolist()]
    return rotation_weights(np.array(ages, np.float64), rotation) if min(ages, default=np.inf) < np.inf else None
