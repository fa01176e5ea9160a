"""What an expression is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias


class ExpressionError(Exception):
    """An expression that cannot be used, and where: ``position`` counts characters from 0."""

    def __init__(self, problem: str, position: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.position = position


@dataclass(frozen=True, slots=True)
class Constant:
    """A text, a number or a truth value; or, of type `datetime`, ``timestamp("…")``."""

    value: str | float | bool | datetime
    position: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Name:
    """Something that is read: ``item.price``, ``similarity(user, context)``."""

    name: str
    position: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Has:
    """Whether something is there to be read."""

    name: str
    position: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """``left operator right``; ``&&`` and ``||`` have any number of operands, ``!`` and negation one, ``?`` three."""

    operator: str
    operands: tuple[Node, ...]
    position: int
    depth: int


@dataclass(frozen=True, slots=True)
class Call:
    """A function of its operands; of a method the first is what it is called on."""

    function: str
    operands: tuple[Node, ...]
    position: int
    depth: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A list that is written out."""

    elements: tuple[Node, ...]
    position: int
    depth: int


Node: TypeAlias = Constant | Name | Has | Operation | Call | Listed


def nodes_of(node: Node) -> Iterator[Node]:
    """Return ``node`` and all it is made of."""
    yield node
    for operand in operands_of(node):
        yield from nodes_of(operand)


def operands_of(node: Node) -> tuple[Node, ...]:
    """Return what ``node`` is made of directly."""
    match node:
        case Operation() | Call():
            return node.operands
        case Listed():
            return node.elements
        case _:
            return ()


def milliseconds(time: datetime) -> int:
    """Return ``time`` as filters have it."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
