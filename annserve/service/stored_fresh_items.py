"""Items upserted and deleted through AdminService: checked against the snapshot that is served, and stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from annserve.domain.arrays import Vectors
from annserve.domain.errors import (
    FieldViolation,
    InstanceRefusedError,
    InstanceUnavailableError,
    InvalidArgumentError,
)
from annserve.domain.fresh import FreshItem, FreshStore
from annserve.keeper.fresh_view import FreshView
from annserve.service.admin import Instance, UpsertedItem


class StoredFreshItems:
    """Implements `service.admin.FreshItems` over a store that the instance's keepers follow."""

    def __init__(
        self,
        store: FreshStore,
        instance: Instance,
        open_view: Callable[[str], FreshView],
        added_ids: Callable[[], frozenset[str]],
        items_max: int,
    ) -> None:
        """Write to ``store``.

        Args:
            store: Keeps them.
            instance: Says which snapshot is served.
            open_view: Gives the view of a snapshot by its id, in a thread.
            added_ids: Gives the ids of the items that were upserted and are in no snapshot yet.
            items_max: How many of those there may be.
        """
        self._store = store
        self._instance = instance
        self._open_view = open_view
        self._added_ids = added_ids
        self._items_max = items_max
        self._view: FreshView | None = None

    async def upsert(self, items: Sequence[UpsertedItem]) -> None:
        """Add or replace items of different ids; see the port for what it raises."""
        count = len(self._added_ids() | {item.item_id for item in items})
        if count > self._items_max:
            problem = f"these would make {count:,} fresh items of at most {self._items_max:,}; train a snapshot of them"
            raise InstanceRefusedError("FRESH_ITEMS", problem)
        view = await self._served()
        await self._store.write(await asyncio.to_thread(_checked, items, view))

    async def delete(self, item_ids: Sequence[str]) -> None:
        """Take items out of all answers."""
        await self._store.write([FreshItem(item_id=item_id) for item_id in item_ids])

    async def _served(self) -> FreshView:
        snapshot_id = (await self._instance.status()).snapshot_id
        if snapshot_id is None:
            raise InstanceUnavailableError("no snapshot is served yet")
        if self._view is None or self._view.snapshot_id != snapshot_id:
            self._view = await asyncio.to_thread(self._open_view, snapshot_id)
        return self._view


def _checked(items: Sequence[UpsertedItem], view: FreshView) -> list[FreshItem]:
    problems: list[FieldViolation] = []
    checked = []
    for place, item in enumerate(items):
        vector = None
        if item.vector is None:
            if view.liked_vector(item.liked_by_user_ids) is None:
                problem = f"names no user with a vector in snapshot {view.snapshot_id}"
                problems.append(FieldViolation(field=f"items[{place}].liked_by.user_ids", description=problem))
        else:
            with np.errstate(over="ignore", under="ignore"):
                vector = np.array(item.vector, np.float64).astype(np.float32)
            if problem := _vector_problem(vector, view):
                problems.append(FieldViolation(field=f"items[{place}].vector", description=problem))
        checked.append(
            FreshItem(
                item_id=item.item_id,
                vector=vector,
                snapshot_id="" if vector is None else view.snapshot_id,
                liked_by_user_ids=item.liked_by_user_ids,
                popularity=item.popularity,
            )
        )
    if problems:
        raise InvalidArgumentError(problems)
    return checked


def _vector_problem(vector: Vectors, view: FreshView) -> str:
    if len(vector) != view.dimension:
        return f"must have the {view.dimension} values of snapshot {view.snapshot_id}, got {len(vector)}"
    if not view.has_place_for(vector):
        return "must have a length above 0 that float32 can hold and divide by"
    return ""
