"""What a child is told when it is started: one JSON argument, ``--child {…}``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

FLAG: Final = "--child"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperOrders:
    """What every child is told, and all that the keeper is."""

    runtime: str
    """The folder of this instance's sockets, cache and metrics."""
    address: str
    """Where workers serve; the port is known by now."""
    board_fd: int
    lifeline_fd: int
    """Readable, at its end, once the supervisor has gone: then the child has two seconds to go too."""

    @property
    def runtime_folder(self) -> Path:
        """`runtime` as a path."""
        return Path(self.runtime)

    def arguments(self) -> list[str]:
        """Return the arguments that carry this."""
        return [FLAG, json.dumps(dataclasses.asdict(self))]

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what ``text``, the value of the argument, says.

        Raises:
            TypeError, ValueError: it is not what `arguments` makes.
        """
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOrders(KeeperOrders):
    """What a loader is told."""

    generation: int
    """Counts the loaders of this instance."""
    snapshot_id: str | None
    """What to load; None means the live one, or the best that can be had in its place."""
    control_fd: int
    """Its end of the conversation that `annserve.supervisor.loader` describes."""
