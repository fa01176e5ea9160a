"""What is wrong with placement files: where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from annserve.domain.errors import InputError

PROBLEMS_MAX = 100
"""How many are told of at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in a file, which lines and columns say from 1 on, in characters."""

    line: int = 1
    column: int = 1
    field: str = ""
    """The path of the key: ``boosts[0].when``; empty where it is the file as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong in a file."""

    file: str
    """As in ``home.yaml``."""
    place: Place = Place()
    text: str
    """What is wrong, and the remedy."""

    def __str__(self) -> str:
        """Return it as compilers do: ``home.yaml:3:9: boosts[0].when: …``."""
        where = f"{self.file}:{self.place.line}:{self.place.column}"
        return f"{where}: {self.place.field}: {self.text}" if self.place.field else f"{where}: {self.text}"


class PlacementsRefusedError(InputError):
    """Placements that must not be used; the message names all that is wrong with them, a line each."""

    reason = "PLACEMENTS_REFUSED"

    def __init__(self, problems: Sequence[Problem]) -> None:
        shown = [str(problem) for problem in problems[:PROBLEMS_MAX]]
        super().__init__("\n".join(shown), problem_count=len(problems))
        self.problems = tuple(problems)
