"""Where placements come from, as text: the port of folders and of collections."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

TEXT_BYTES_MAX: Final = 64 << 10
"""What a placement's text may have, in UTF-8. Sources read one character more of a longer one, which shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementText:
    """A placement as somebody wrote it."""

    name: str
    """As requests call it."""
    origin: str
    """Where it is, for people: ``home.yaml``."""
    text: str
    """YAML; bytes that are no UTF-8 are lone surrogates in it."""


class PlacementSource(Protocol):
    """Where they are kept."""

    async def read(self) -> Sequence[PlacementText]:
        """Return all there are now.

        Raises:
            InputError, CatalogUnavailableError: they cannot be read.
        """
        ...

    def follow(self) -> AsyncGenerator[Sequence[PlacementText], None]:
        """Yield all there are, at once and again after each change, within about half a second.

        Raises:
            InputError, CatalogUnavailableError: they cannot be read; follow them again.
        """
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
