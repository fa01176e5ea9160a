"""What is known of items and users outside the snapshot, and the port of the stores that hold it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from annserve.domain.deadline import NO_DEADLINE, Deadline
from annserve.domain.errors import InvalidArgumentError
from annserve.domain.filter import Field, Filter, Leaf, Scalar
from annserve.domain.progress import Progress, no_progress

Document: TypeAlias = Mapping[str, object]
"""An item's metadata as its store holds it, nested and of any types; what it is called there, not its declared name."""

Metadata: TypeAlias = Mapping[str, tuple[Scalar, ...]]
"""Declared fields of one item by name: one value, or those of a list; without what is missing or of another type."""


class Schema:
    """The declared fields, by name."""

    def __init__(self, fields: Iterable[Field] = ()) -> None:
        self.fields: Mapping[str, Field] = {field.name: field for field in fields}

    def field(self, name: str) -> Field | None:
        """Return the field called ``name``, None when there is none."""
        return self.fields.get(name)

    def named(self, names: Iterable[str]) -> tuple[Field, ...]:
        """Return the fields called ``names``.

        Raises:
            InvalidArgumentError: one is not declared; the message lists those that are.
        """
        try:
            return tuple(self.fields[name] for name in names)
        except KeyError as error:
            raise InvalidArgumentError.of("field", self.unknown(str(error.args[0]))) from None

    def unknown(self, name: str) -> str:
        """Return what to say of a name that is not declared."""
        return f"{name!r} is not declared; the fields are {', '.join(self.fields) or 'none'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """Something a user did with an item."""

    item_id: str
    event: str = "viewed"
    """What she did: ``viewed``, ``liked``, ``disliked``, ``bought``, or a word of the team's own."""
    time_ms: int
    """When, in milliseconds since 1970, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """An entry of a history as its store holds it, for whoever reads all of them; None for what is none."""

    user_id: str | None
    item_id: str | None
    event: str | None
    time_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An item whose document was written or, with None, deleted. Several changes may arrive as the last of them."""

    item_id: str
    document: Document | None


class ChangesLostError(Exception):
    """Changes were missed and cannot be had again: whatever was derived from the catalogue must be read anew."""


class ChangesUnsupportedError(Exception):
    """This store cannot tell of changes."""


class FreshnessMode(Enum):
    """How a store's changes become known."""

    STREAM = "stream"
    """It tells of each."""
    TTL = "ttl"
    """What was read is read again when it is old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDrift:
    """How documents differ from a declared field."""

    field: str
    missing: int
    other_type: int
    examples: tuple[str, ...]
    """Ids of a few documents with a value of another type."""


class CatalogStore(Protocol):
    """Items' metadata and users' histories, wherever they are kept.

    Every method with a deadline ends by then, and raises CatalogUnavailableError as soon as it is known that the store
    does not answer, DeadlineExceededError when the time is up. Item and user ids are the strings requests use.
    """

    @property
    def schema(self) -> Schema:
        """The declared fields."""
        ...

    @property
    def available(self) -> bool:
        """Whether the store is believed to answer; False while it is known that it does not."""
        ...

    def matching(self, leaf: Leaf | None, deadline: Deadline = NO_DEADLINE) -> AsyncIterator[Sequence[str]]:
        """Return the ids of all items that pass ``leaf`` (None: of all items), in chunks of at most some thousand.

        Raises:
            FieldNotIndexedError: the leaf's field has no index, and the settings do not put up with that.
        """
        ...

    async def select(
        self,
        item_ids: Sequence[str],
        filter_: Filter | None = None,
        fields: Sequence[Field] = (),
        deadline: Deadline = NO_DEADLINE,
    ) -> Mapping[str, Metadata]:
        """Return, by id, the declared ``fields`` of those among at most 2,000 items that exist and pass ``filter_``."""
        ...

    async def history(self, user_id: str, newest: int, deadline: Deadline = NO_DEADLINE) -> Sequence[HistoryEntry]:
        """Return the newest entries of a user, at most so many, oldest first; none for an unknown user."""
        ...

    async def add_history(
        self, user_id: str, entries: Sequence[HistoryEntry], deadline: Deadline = NO_DEADLINE
    ) -> None:
        """Add to a user's history; what exceeds the store's bound drops its oldest entries."""
        ...

    async def erase_history(self, user_id: str, deadline: Deadline = NO_DEADLINE) -> int:
        """Forget a user, and return how many entries that were."""
        ...

    async def upsert(
        self, documents: Iterable[tuple[str, Document]], progress: Progress = no_progress, total: int | None = None
    ) -> int:
        """Write whole documents by item id, replacing those that are there, and return how many."""
        ...

    async def delete(self, item_ids: Sequence[str]) -> int:
        """Delete items, and return how many there were."""
        ...

    def changes(self) -> AsyncIterator[Sequence[Change]]:
        """Return the changes of items from now on, in order, as they happen.

        An empty sequence says that everything up to now has been told; one comes at least every 100 ms or so. After
        the loss of a connection the stream goes on where it stopped, and raises CatalogUnavailableError meanwhile:
        ask for the next change again.

        Raises:
            ChangesLostError: it cannot go on.
            ChangesUnsupportedError: the store has no such stream.
        """
        ...

    async def drift(self, progress: Progress = no_progress) -> Sequence[FieldDrift]:
        """Return how the documents differ from the declared fields, reading all of them."""
        ...

    async def ensure_indexes(self) -> Sequence[str]:
        """Create the indexes that filters and histories need, and return the names of those that were not there."""
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...
