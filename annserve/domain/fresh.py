"""Items that come, change and go between snapshots, and the port of the stores that keep them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from annserve.domain.arrays import Vectors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreshItem:
    """What was last said of an item: where it lies among the others, or that it is gone."""

    item_id: str
    vector: Vectors | None = None
    """``(d,)``, finite and not zero: in the space of `snapshot_id`."""
    snapshot_id: str = ""
    """The snapshot that `vector` was given for; empty without one."""
    liked_by_user_ids: tuple[str, ...] = ()
    """Who liked it, where there is no vector: each snapshot works one out of theirs. An item with neither is gone."""
    popularity: float = 0.0
    """The popularity prior, at least 0."""

    @property
    def is_deleted(self) -> bool:
        """Whether the item is gone."""
        return self.vector is None and not self.liked_by_user_ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredItem:
    """A fresh item as its store keeps it."""

    item: FreshItem
    number: int
    """From 0 on: the store gives each id one, which stays the same as long as anything is kept of the item."""
    written_ms: int
    """When, in milliseconds since 1970, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FreshChange:
    """What became of an item, as one snapshot sees it: it has a vector, or is gone, or is what it was there."""

    item_id: str
    number: int
    """See `StoredItem`: its row among the snapshot's, from the end of those on, where the snapshot has none for it."""
    vector: Vectors | None = None
    popularity: float = 0.0
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class FreshBatch:
    """What a store tells at once."""

    items: Sequence[StoredItem]
    is_all: bool = False
    """Whether that is all there is: whatever was told before and is not among it, the store has forgotten."""


class FreshStore(Protocol):
    """Keeps fresh items until they are in snapshots.

    Every method raises CatalogUnavailableError when the store cannot be written or read now.
    """

    async def write(self, items: Sequence[FreshItem]) -> None:
        """Keep the last word on items of different ids; it is kept for good once this returns.

        When it fails a part may have been written: write the same again.
        """
        ...

    async def all(self) -> Sequence[StoredItem]:
        """Return the last word on every item, by number."""
        ...

    def follow(self) -> AsyncGenerator[FreshBatch, None]:
        """Return all there is, and from then on what is written, in order, as it happens.

        What happens to one item between two batches may be told as the last of it. After an error ask for a new
        iterator.
        """
        ...

    async def forget(self, items: Sequence[StoredItem]) -> None:
        """Drop what is kept of items on which nothing has been written since."""
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...
