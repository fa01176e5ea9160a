"""YAML as placement files have it: plain values, each with the place where it is written.

Of YAML 1.1 what surprises is left out: ``no`` and ``12:30`` are texts, only ``true`` and ``false`` are truth values,
and a key that is written twice is an error. So is what could hide work in a small file: anchors, tags, deep nesting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

BYTES_MAX: Final = 64 << 10
DEPTH_MAX: Final = 12

Path: TypeAlias = tuple[str | int, ...]
"""Keys and places in lists, from the top."""

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
    if len(text) > BYTES_MAX or len(text.encode(errors="replace")) > BYTES_MAX:
        raise YamlError(f"must be at most {BYTES_MAX >> 10} KiB")
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = f"is not YAML: {error.problem or error.context or error}"
        raise YamlError(problem, *((mark.line + 1, mark.column + 1) if mark else (1, 1))) from None
    except yaml.YAMLError as error:
        raise YamlError(f"is not YAML: {str(error).splitlines()[0]}") from None
    reader = _Reader()
    value = {} if node is None else reader.value(node, ())
    return Located(value=value, keys=reader.keys, values=reader.values)


class _Loader(yaml.SafeLoader):
    """Makes nodes, and refuses what must not be there before it is."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def fetch_flow_collection_start(self, token_class: type[yaml.Token]) -> None:
        # Before anything is composed: the scanner looks ahead, at a cost that grows with the square of the depth.
        if self.flow_level >= DEPTH_MAX:
            raise YamlError(f"must be nested at most {DEPTH_MAX} deep", self.line + 1, self.column + 1)
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlError("anchors and aliases (&, *) are not for placements: write it out", *place)
        if getattr(event, "tag", None) is not None:
            raise YamlError("tags (!) are not for placements: write the value alone", *place)
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise YamlError(f"must be nested at most {DEPTH_MAX} deep", *place)
        node: Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        self._depth -= 1
        return node


class _Reader:
    """Makes values of nodes, and notes where they were."""

    def __init__(self) -> None:
        self.keys: dict[Path, tuple[int, int]] = {}
        self.values: dict[Path, tuple[int, int]] = {}

    def value(self, node: Node, path: Path) -> Any:
        self.values[path] = _place(node)
        match node:
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                return [self._element(inner, (*path, place)) for place, inner in enumerate(node.value)]
            case _:
                return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = _place(key_node)
            if not isinstance(key_node, ScalarNode):
                raise YamlError("a key must be a word", *place)
            key = str(key_node.value)
            if key in read:
                raise YamlError(f"{key[:40]!r} is there twice", *place)
            self.keys[(*path, key)] = place
            read[key] = self.value(value_node, (*path, key))
        return read

    def _element(self, node: Node, path: Path) -> Any:
        self.keys[path] = _place(node)
        return self.value(node, path)


def _scalar(node: Node) -> Any:
    text = str(node.value)
    if getattr(node, "style", None) is not None:  # In quotes, or a block.
        return text
    if text in _PLAIN:
        return _PLAIN[text]
    if not _NUMBER.fullmatch(text):
        return text
    return int(text) if _WHOLE.fullmatch(text) else float(text)


def _place(node: Node) -> tuple[int, int]:
    return (node.start_mark.line + 1, node.start_mark.column + 1)
