"""Collecting what is wrong with one file, each thing where it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from annserve.domain.value_problems import value_problem
from annserve.placements.expression_tree import ExpressionError
from annserve.placements.file import PlacementFile, Section, sections_in
from annserve.placements.problems import Place, Problem
from annserve.placements.variables import nearest
from annserve.placements.yaml_text import Located, Path, YamlError


class Findings:
    """What is wrong with the file ``origin``."""

    def __init__(self, origin: str, text: str) -> None:
        self._origin = origin
        self._lines = text.splitlines()
        self._located: Located | None = None
        self.problems: list[Problem] = []

    def locate(self, located: Located) -> None:
        """Tell paths' places by ``located`` from now on."""
        self._located = located

    def add(self, path: Path, text: str, *, at_value: bool = False) -> None:
        """Note what is wrong with what is at ``path``."""
        self._note(self.place(path, at_value=at_value), text)

    def place(self, path: Path, *, at_value: bool = False) -> Place:
        """Return where ``path`` is written, or what it holds."""
        line, column = (1, 1)
        if self._located is not None:
            line, column = self._located.value_place(path) if at_value else self._located.place(path)
        return _place(line, column, path)

    def add_yaml(self, error: YamlError) -> None:
        """Note that the text is no YAML."""
        self._note(Place(line=error.line, column=error.column), error.problem)

    def add_expression(self, path: Path, text: str, error: ExpressionError) -> None:
        """Note what is wrong with the expression ``text`` at ``path``."""
        start = self.place(path, at_value=True)
        written = self._lines[start.line - 1][start.column - 1 :] if start.line <= len(self._lines) else ""
        quotes = 1 if written[:1] in ("'", '"') else 0
        # What is folded or escaped begins there too, and where it goes on is not worth working out.
        within = quotes + error.position if written[quotes:].startswith(text) else 0
        self._note(replace(start, column=start.column + within), error.problem)

    def add_validation(self, error: ValidationError) -> None:
        """Note all that pydantic found."""
        for details in error.errors(include_url=False):
            path = tuple(part for part in details["loc"] if part != "[key]")
            self.add(path, _text_of(details, path), at_value=details["type"] not in ("missing", "extra_forbidden"))

    def _note(self, place: Place, text: str) -> None:
        problem = Problem(file=self._origin, place=place, text=_printable(text))
        # Variants share what the file says, mistakes included.
        if problem not in self.problems:
            self.problems.append(problem)


def _place(line: int, column: int, path: Path) -> Place:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in path).lstrip(".")
    return Place(line=line, column=column, field=_printable(field))


def _text_of(details: ErrorDetails, path: Path) -> str:
    if details["type"] == "extra_forbidden":
        if not str(path[-1]).isidentifier():
            return "there is no such key; within { } a comma ends a value, unless the value is in quotes"
        known = list(_keys_at(path[:-1]))
        hint = nearest(str(path[-1]), known)
        return f"there is no such key; did you mean {hint!r}?" if hint else f"there is no such key; there are {known}"
    return value_problem(details)


def _keys_at(path: Sequence[str | int]) -> Iterator[str]:
    """Return the keys that the mapping at ``path`` may have."""
    model: type[Section] = PlacementFile
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            field = model.model_fields[part]
            model = next(sections_in(field.annotation), model)
    yield from model.model_fields
    if "when" in model.model_fields and "suppress" in model.model_fields:
        yield "else"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
