"""A recommender of placements around a catalogue in memory, with oracles to compare its answers with."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from engine_catalog import KIND, PRICE, TwinBuilder, TwinCatalog
from placement_twins import TwinPlacements, placement

from annserve.cache.bitmaps import BitmapCache
from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import AnnserveError
from annserve.domain.events import ShownItem
from annserve.domain.filter import Leaf
from annserve.domain.query import Answer, Mode, Options, Placed, Query, WeightedItem
from annserve.engine.catalog_recommender import CatalogRecommender
from annserve.engine.catalog_settings import CatalogSettings
from annserve.engine.fresh_state import FreshState
from annserve.engine.metadata import MetadataReader
from annserve.engine.placement_recommender import PlacementRecommender
from annserve.engine.recommender import SnapshotRecommender
from annserve.engine.workbench import Workbench
from annserve.placements.recipe import Placement, Recipe
from annserve.snapshot.snapshot import Snapshot

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
"""A Wednesday."""
__all__ = ["KIND", "PRICE"]


class TwinShown:
    """Says what users were shown, or does not answer."""

    def __init__(self) -> None:
        self.by_user: dict[str, list[ShownItem]] = {}
        self.error: AnnserveError | None = None

    async def shown(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[ShownItem]:
        assert math.isfinite(deadline.at)
        if self.error is not None:
            raise self.error
        return self.by_user.get(user_id, [])[:newest]

    def show(self, user_id: str, item_ids: Sequence[str], age_seconds: float = 0.0) -> None:
        at = round((time.time() - age_seconds) * 1e3)
        self.by_user[user_id] = [ShownItem(item_id=item_id, time_ms=at) for item_id in item_ids]


@dataclass
class PlacedEngine:
    """What answers, and what it is made of."""

    engine: PlacementRecommender
    inner: CatalogRecommender
    core: SnapshotRecommender
    fresh: FreshState
    placements: TwinPlacements
    store: TwinCatalog
    builder: TwinBuilder
    bitmaps: BitmapCache
    metadata: MetadataReader
    shown: TwinShown
    now: list[datetime] = field(default_factory=lambda: [NOON])

    @classmethod
    def of(cls, snapshot: Snapshot) -> PlacedEngine:
        """Return one whose items have a price of 0 to 99, and one of five kinds."""
        items, random = snapshot.items, np.random.default_rng(3)
        documents: dict[str, Mapping[str, Any]] = {
            items.id(row): {"price": int(random.integers(0, 100)), "kind": f"kind-{random.integers(0, 5)}"}
            for row in range(len(items))
        }
        fresh = FreshState(snapshot)
        core = SnapshotRecommender(snapshot, fresh)
        store, bitmaps = TwinCatalog(documents), BitmapCache()
        builder = TwinBuilder(store, items, bitmaps)
        settings = CatalogSettings(wait_seconds=0.1)
        metadata = MetadataReader(store, bitmaps, settings)  # type: ignore[arg-type]
        workbench = Workbench(ThreadPoolExecutor(1), wait_seconds_max=math.inf)
        inner = CatalogRecommender(core, workbench, store, bitmaps, builder, metadata, settings)  # type: ignore[arg-type]
        placements, shown, now = TwinPlacements(), TwinShown(), [NOON]
        engine = PlacementRecommender(inner, core, placements, shown, 0.1, lambda: now[0])
        return cls(engine, inner, core, fresh, placements, store, builder, bitmaps, metadata, shown, now)

    def know(self, *leaves: Leaf | None) -> None:
        """Read ``leaves``, and which items there are, into the cache; all changes have arrived."""
        for leaf in (None, *leaves):
            self.builder.finish(leaf)
        self.bitmaps.synced_at = time.monotonic() + 60

    async def ask(
        self,
        shown: Recipe | Placement,
        *item_ids: str,
        user_id: str | None = None,
        recent: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        deadline: Deadline = NO_DEADLINE,
        **placed: Any,
    ) -> Answer:
        """Return what the one placement there is shows."""
        one = placement(shown) if isinstance(shown, Recipe) else shown
        self.placements.show(one, *self.others)
        return await self.engine.recommend(
            question(one.name, *item_ids, user_id=user_id, recent=recent, options=options, **placed), deadline
        )

    @property
    def others(self) -> list[Placement]:
        """Placements that there are besides."""
        return self._others

    _others: list[Placement] = field(default_factory=list)

    async def bare(self, mode: Mode, *item_ids: str, user_id: str | None = None, **options: Any) -> Answer:
        """Return the answer to the plain question."""
        asked = Query(mode=mode, item_ids=item_ids, user_id=user_id, options=Options(**options))
        return await self.engine.recommend(asked)

    def price(self, item_id: str) -> int:
        return int(self.store.documents[item_id]["price"])

    def kind(self, item_id: str) -> str:
        return str(self.store.documents[item_id]["kind"])


def question(
    name: str,
    *item_ids: str,
    user_id: str | None = None,
    recent: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    **placed: Any,
) -> Query:
    """Return what asks a placement."""
    return Query(
        mode=Mode.PLACEMENT,
        item_ids=item_ids,
        user_id=user_id,
        recent_items=tuple(WeightedItem(item_id=item_id) for item_id in recent),
        options=Options(**(options or {})),
        placed=Placed(placement=name, **placed),
    )
