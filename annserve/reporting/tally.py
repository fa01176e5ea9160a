"""Finished impressions, counted: per cell and group of users, per item, per variant."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import chain
from typing import NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from annserve.reporting.dimensions import SIMILARITIES, Dimension, label, similarity
from annserve.reporting.groups import GROUPS, Distinct, GroupedSums, hash_of
from annserve.reporting.join import Outcome, Shown

Crossing: TypeAlias = tuple[Dimension, ...]
"""Dimensions whose values are told apart together; empty for all impressions of a placement."""

ALWAYS: tuple[Crossing, ...] = (
    (),
    (Dimension.VARIANT,),
    *((Dimension.MODE, dimension) for dimension in SIMILARITIES),
)
"""What is counted whatever is asked for: totals, experiments and effects are made of it."""


class LineKey(NamedTuple):
    """Impressions that a line of conversion over similarity is laid through."""

    placement: str
    similarity: Dimension
    mode: str


class Arm(NamedTuple):
    """Users who met one variant."""

    placement: str
    experiment: str
    variant: str


class Tally:
    """Counts impressions, in 40 kB a cell or line, 4 bytes a user and variant, and an entry an item and placement."""

    def __init__(self, by: Sequence[Crossing], zone: ZoneInfo, zones: Mapping[str, ZoneInfo] | None = None) -> None:
        """Tell apart ``by``; hours are those of ``zones``, by placement, and of ``zone`` for others."""
        crossings = dict.fromkeys((*ALWAYS, *by))
        self.cells: dict[Crossing, GroupedSums[tuple[str, ...]]] = {crossing: GroupedSums(5) for crossing in crossings}
        """By placement and values: impressions, those clicked, converted, later converted; the value of conversions."""
        self.lines: GroupedSums[LineKey] = GroupedSums(5)
        """What `estimates.line` takes: y is whether there was a conversion."""
        self.users: defaultdict[Arm, Distinct] = defaultdict(Distinct)
        self.exposures: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """How often each item was shown, by placement."""
        self.versions: defaultdict[str, set[str]] = defaultdict(set)
        """Of its file, that answered, by placement; events need not say which."""
        self._dimensions = tuple(dict.fromkeys(chain.from_iterable(crossings)))
        self._zone = zone
        self._zones = zones or {}

    def add(self, batch: Sequence[Shown]) -> None:
        """Count impressions that are over."""
        if not batch:
            return
        hashes = np.fromiter((hash_of(shown.user_id) for shown in batch), np.int64, len(batch))
        groups = hashes % GROUPS
        outcomes = np.array(
            [
                (1, shown.is_clicked, shown.outcome is Outcome.CONVERTED, shown.outcome is Outcome.LATER, shown.value)
                for shown in batch
            ],
            np.float64,
        )
        placements = [shown.answerer.placement for shown in batch]
        labels = {name: [label(shown, name, self._zone_of(shown)) for shown in batch] for name in self._dimensions}
        for by, sums in self.cells.items():
            sums.add(list(zip(placements, *(labels[name] for name in by), strict=True)), groups, outcomes)
        for dimension in SIMILARITIES:
            self._add_to_lines(batch, dimension, groups)
        positions: defaultdict[Arm, list[int]] = defaultdict(list)
        for position, shown in enumerate(batch):
            if shown.answerer.version:
                self.versions[shown.answerer.placement].add(shown.answerer.version)
            positions[Arm(shown.answerer.placement, shown.answerer.experiment, shown.answerer.variant)].append(position)
        for arm, of_arm in positions.items():
            self.users[arm].add(hashes[of_arm])
            self.exposures[arm.placement].update(chain.from_iterable(batch[position].item_ids for position in of_arm))

    def users_of(self, placement: str) -> int:
        """Return how many users a placement showed something to."""
        arms = [users for arm, users in self.users.items() if arm.placement == placement]
        return len(reduce(Distinct.union, arms, Distinct()))

    def _zone_of(self, shown: Shown) -> ZoneInfo:
        return self._zones.get(shown.answerer.placement, self._zone)

    def _add_to_lines(self, batch: Sequence[Shown], dimension: Dimension, groups: npt.NDArray[np.int64]) -> None:
        known = [
            (position, cosine)
            for position, shown in enumerate(batch)
            if (cosine := similarity(shown, dimension)) is not None
        ]
        if not known:
            return
        positions = [position for position, _ in known]
        x = np.array([cosine for _, cosine in known])
        y = np.array([batch[position].outcome is Outcome.CONVERTED for position in positions], np.float64)
        keys = [
            LineKey(batch[position].answerer.placement, dimension, batch[position].answerer.mode.value)
            for position in positions
        ]
        self.lines.add(keys, groups[positions], np.stack([np.ones_like(x), x, x * x, y, x * y], axis=1))
