"""Users who were erased, known by a digest of their id alone, and the port of the stores that remember them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar

_DIGEST_BYTES = 16


class Dated(Protocol):
    """Something that happened to a user."""

    @property
    def time_ms(self) -> int:
        """When, in milliseconds since 1970, UTC."""
        ...


DatedT = TypeVar("DatedT", bound=Dated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """That a user was erased: whatever is older than `erased_ms` is to be forgotten wherever it turns up."""

    digest: str
    """Of her id; see `digest_of`."""
    erased_ms: int
    """When last, in milliseconds since 1970, UTC."""


def digest_of(user_id: str) -> str:
    """Return what is remembered of an erased user in the place of her id: 32 hexadecimal digits."""
    return blake2b(user_id.encode(), digest_size=_DIGEST_BYTES).hexdigest()


class ErasureStore(Protocol):
    """Remembers erasures for good. Every method raises CatalogUnavailableError when it cannot."""

    async def add(self, erasure: Erasure) -> None:
        """Remember ``erasure``; it is kept for good once this returns. Of a user's erasures the last counts."""
        ...

    async def since(self, erased_ms: int) -> Sequence[Erasure]:
        """Return the erasures of ``erased_ms`` or later."""
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...


class ErasedUsers:
    """The erasures that a process knows of."""

    def __init__(self) -> None:
        self._erased_ms: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._erased_ms)

    def add(self, erasures: Sequence[Erasure]) -> bool:
        """Learn of ``erasures``, and return whether any was new."""
        news = [one for one in erasures if one.erased_ms > self._erased_ms.get(one.digest, 0)]
        self._erased_ms.update((one.digest, one.erased_ms) for one in news)
        return bool(news)

    def all(self) -> list[Erasure]:
        """Return the last erasure of each user."""
        return [Erasure(digest=digest, erased_ms=erased_ms) for digest, erased_ms in self._erased_ms.items()]

    def erased_ms(self, user_id: str) -> int:
        """Return when a user was erased last, in milliseconds since 1970; 0 for one who was not."""
        # Nobody was, as a rule, and then no digest is made.
        return self._erased_ms.get(digest_of(user_id), 0) if self._erased_ms else 0

    def younger(self, user_id: str, found: Sequence[DatedT]) -> Sequence[DatedT]:
        """Return what was ``found`` of a user without what is to be forgotten: it may have been read before."""
        erased_ms = self.erased_ms(user_id)
        return [one for one in found if one.time_ms > erased_ms] if erased_ms else found
