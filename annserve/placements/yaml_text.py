"""YAML as placement files have it: plain values, each with the place where it is written.

Of YAML 1.1 what surprises is left out: ``no`` and ``12:30`` are texts, only ``true`` and ``false`` are truth values,
and a key that is written twice is an error. So is what could hide work in a small file: anchors, tags, deep nesting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import yaml

from annserve.domain.placements import TEXT_BYTES_MAX

DEPTH_MAX: Final = 12

Path: TypeAlias = tuple[str | int, ...]
"""Keys and places in lists, from the top."""

_LOADER: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
"""Of its work, only that up to events is used: no object is made of anything."""
_NUMBER: Final = re.compile(
    r"[-+]?(\d{1,18}|(\d{0,18}\.\d{1,18}|\d{1,18}\.)([eE][-+]?\d{1,3})?|\d{1,18}[eE][-+]?\d{1,3})"
)
_WHOLE: Final = re.compile(r"[-+]?\d+")
_PLAIN: Final = {"": None, "~": None, "null": None, "true": True, "false": False}


class YamlError(Exception):
    """A text that is no such YAML, and where: lines and columns count from 1."""

    def __init__(self, problem: str, line: int = 1, column: int = 1) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A value, and where it and all it is made of is written."""

    value: Any
    keys: Mapping[Path, tuple[int, int]]
    """Line and column, from 1 on, of each key or element."""
    values: Mapping[Path, tuple[int, int]]
    """Of what it holds."""

    def place(self, path: Path) -> tuple[int, int]:
        """Return where ``path``, or as much of it as there is, is written."""
        for length in range(len(path), 0, -1):
            if (found := self.keys.get(path[:length])) is not None:
                return found
        return (1, 1)

    def value_place(self, path: Path) -> tuple[int, int]:
        """Return where what ``path``, or as much of it as there is, holds begins."""
        for length in range(len(path), 0, -1):
            if (found := self.values.get(path[:length])) is not None:
                return found
        return (1, 1)


def read_yaml(text: str) -> Located:
    """Return what ``text`` holds; nothing is an empty mapping.

    Raises:
        YamlError: it is no YAML, or has what placement files must not have.
    """
    try:
        if len(text.encode()) > TEXT_BYTES_MAX:
            raise YamlError(f"must be at most {TEXT_BYTES_MAX >> 10} KiB")
        reader = _Reader(yaml.parse(text, _LOADER))
        return Located(value=reader.document(), keys=reader.keys, values=reader.values)
    except UnicodeEncodeError as error:
        raise YamlError("is no text in UTF-8", *_place_after(text[: error.start])) from None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")
        raise YamlError(f"is not YAML: {error.reason}", *_place_after(before)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"is not YAML: {error.problem or error.context or error}"
        raise YamlError(problem, *((mark.line + 1, mark.column + 1) if mark else (1, 1))) from None
    except yaml.YAMLError as error:
        raise YamlError(f"is not YAML: {str(error).splitlines()[0]}") from None


class _Reader:
    """Makes values of what a parser comes upon, and notes where they were; refuses what must not be there."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._depth = 0
        self.keys: dict[Path, tuple[int, int]] = {}
        self.values: dict[Path, tuple[int, int]] = {}

    def document(self) -> Any:
        """Return what the only document holds."""
        value: Any = None
        is_read = False
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                value, is_read = self._value(event, ()), True
            elif is_read and isinstance(event, yaml.DocumentStartEvent):
                raise YamlError("must be one document: --- begins another", *_place(event))
        return {} if value is None else value

    def _value(self, event: yaml.Event, path: Path) -> Any:
        self._check(event)
        self.values[path] = _place(event)
        if not isinstance(event, yaml.CollectionStartEvent):
            return _scalar(event)
        read = self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path)
        self._depth -= 1
        return read

    def _check(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlError("anchors and aliases (&, *) are not for placements: write it out", *_place(event))
        if getattr(event, "tag", None) is not None:
            raise YamlError("tags (!) are not for placements: write the value alone", *_place(event))
        if isinstance(event, yaml.CollectionStartEvent):
            self._depth += 1
            if self._depth > DEPTH_MAX:
                raise YamlError(f"must be nested at most {DEPTH_MAX} deep", *_place(event))

    def _mapping(self, path: Path) -> dict[str, Any]:
        read: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            self._check(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise YamlError("a key must be a word", *_place(event))
            key = str(event.value)
            if key in read:
                raise YamlError(f"{key[:40]!r} is there twice", *_place(event))
            self.keys[(*path, key)] = _place(event)
            read[key] = self._value(next(self._events), (*path, key))
        return read

    def _sequence(self, path: Path) -> list[Any]:
        read: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            self.keys[(*path, len(read))] = _place(event)
            read.append(self._value(event, (*path, len(read))))
        return read


def _scalar(event: yaml.Event) -> Any:
    text = str(getattr(event, "value", ""))
    if getattr(event, "style", None):  # In quotes, or a block.
        return text
    if text in _PLAIN:
        return _PLAIN[text]
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if _WHOLE.fullmatch(text) else float(text)


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _place_after(before: str) -> tuple[int, int]:
    lines = before.split("\n")
    return len(lines), len(lines[-1]) + 1
